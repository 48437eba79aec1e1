"""Requests made from the daemon's own description, and what is wrong with its answers to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fuzzing.site import DEVICE, OPERATOR, TEXTS, TIMEOUT_S, VIEWER, FuzzedSite

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
Operation: TypeAlias = APIOperation[Any, Any, Any, Any]
AnyCase: TypeAlias = Case[Any]
RULE = "exactly one of"  # of fields that belong together: said in words, for JSON Schema says it badly
MAX_LINE = 8_000
TOKENS = {"nobody": None, "viewer": VIEWER, "operator": OPERATOR}
RANKS = {"nobody": 0, "viewer": 1, "operator": 2}


@dataclass
class Report:
    """`statuses` by operation; `problems` say how to see them again."""

    asked: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def fuzz(
    site: FuzzedSite, examples: int, number: int, say: Callable[[str], None] = lambda _line: None, only: str = ""
) -> Report:
    """Asks for every operation of the description (with `only` in its path) in every role; `number` decides how."""
    report = Report()
    schema = schemathesis.openapi.from_dict(site.document())
    schema.config.update(base_url=site.url)
    schema.config.generation.update(with_security_parameters=False)
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), f"the description is wrong: {result}"
        operation = result.ok()
        if only not in operation.path:
            continue
        site.refill()
        for mode in _modes(operation):
            _fuzz_one(site, operation, mode, examples, number, report)
        say(f"{report.asked:6} asked, {len(report.problems)} problems  {operation.label}")
    return report


def _modes(operation: Operation) -> Sequence[GenerationMode]:
    """What cannot be wrong is not asked wrongly: a path parameter is any text."""
    can_be_wrong = bool(operation.query) or bool(operation.body)
    return (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if can_be_wrong else (GenerationMode.POSITIVE,)


def _fuzz_one(
    site: FuzzedSite,
    operation: Operation,
    mode: GenerationMode,
    examples: int,
    number: int,
    report: Report,
) -> None:
    statuses = report.statuses.setdefault(operation.label, Counter())
    needed = operation.definition.raw["x-role"]

    def ask(case: AnyCase, name: str | None, is_everything: bool) -> None:
        is_as_generated = not _make_known(case, name, is_everything)
        for role, token in TOKENS.items():
            headers = None if token is None else {"Authorization": f"Bearer {token}"}
            response = case.call(session=site.session, headers=headers, timeout=TIMEOUT_S)
            report.asked += 1
            statuses[response.status_code] += 1
            is_allowed = RANKS[role] >= RANKS[needed]
            problems = _problems(case, response, needs_to_fit=is_allowed and is_as_generated)
            problems += _refusal_problems(response, role, is_allowed) + _leaks(site, case, response, role)
            report.problems += [
                f"{role}: {response.status_code}: {problem}: {case.as_curl_command()}" for problem in problems
            ]

    strategy = operation.as_strategy(generation_mode=mode)
    names = st.none() | st.sampled_from(site.known(operation.path))
    run = given(strategy, names, st.booleans())(ask)
    try:
        seed(number)(_bounded(examples)(run))()
    except Unsatisfiable:
        return  # nothing of this operation can be asked wrongly


def _bounded(examples: int) -> settings:
    """No deadlines, and nothing remembered: a run depends on its seed alone."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _make_known(case: AnyCase, name: str | None, is_everything: bool) -> bool:
    """Most of what is generated at random leads to nothing: some of it is made to be about what is there."""
    is_changed = name is not None and bool(case.path_parameters)
    for parameter in case.path_parameters or {}:
        if name is not None:
            case.path_parameters[parameter] = name
    if not isinstance(case.body, dict):
        return is_changed
    if name is not None and "tier" in case.body:
        case.body = case.body | {"tier": "hub"}
        is_changed = True
    if is_everything and "/bulk/" in case.path:
        case.body = {key: value for key, value in case.body.items() if key not in ("ids", "filter")} | {"all": True}
        is_changed = True
    if is_everything and isinstance(entries := case.body.get("requests"), list):
        case.body = case.body | {"requests": [_with_one_payload(entry) for entry in entries]}
        is_changed = True
    return is_changed


def _with_one_payload(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in entry.items() if key != "payload_base64"} | {"payload": "frost?"}


def _problems(case: AnyCase, response: Response, *, needs_to_fit: bool) -> list[str]:
    if len(str(response.request.url)) > MAX_LINE:
        return []  # aiohttp does not read on
    checks: list[Any] = [*CHECKS]
    if response.status_code != 413:  # too large is a refusal, and says nothing of the rest
        checks.append(negative_data_rejection)
    if needs_to_fit and RULE not in response.text and response.status_code != 413:
        checks.append(positive_data_acceptance)
    found: list[str] = []
    for check in checks:
        try:
            case.validate_response(response, checks=[check])
        except FailureGroup as group:
            found += [_words(error) for error in group.exceptions]
    return found


def _words(error: Exception) -> str:
    return f"{error.title}: {error.message}" if isinstance(error, Failure) else str(error)


def _refusal_problems(response: Response, role: str, is_allowed: bool) -> list[str]:
    wanted = {401} if role == "nobody" else {403}
    if is_allowed:
        return ["refused"] if response.status_code == 401 else []
    if len(str(response.request.url)) > MAX_LINE:
        wanted.add(400)
    return [] if response.status_code in wanted else [f"{role} may not do this"]


def _leaks(site: FuzzedSite, case: AnyCase, response: Response, role: str) -> list[str]:
    told = response.text + str(dict(response.headers))
    hidden = list(site.secrets)
    asks_for_texts = case.path == "/v1/export" or (case.query or {}).get("text")
    if role != "operator" or not asks_for_texts:
        hidden += TEXTS
    if role == "nobody":
        hidden.append(DEVICE)
    return [f"tells {word!r}" for word in hidden if word in told]
