"""`mqrouter route replay`: past requests decided again, and what would change."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, echo_json, load_or_exit
from mqrouter.cli.daemon import open_database
from mqrouter.cli.labelled import progress_bar, quiet_log
from mqrouter.cli.replay_cost import Call, cost, cost_lines, tokens_of
from mqrouter.cli.selection import age
from mqrouter.cli.tables import format_table, printable

if TYPE_CHECKING:
    from mqrouter.core.request import JsonObject
    from mqrouter.edge.store.past import Decided
    from mqrouter.routing.session import Session
    from mqrouter.routing.signals import Embedding
    from mqrouter.settings import Settings

ABSTAINED = "(none)"
NO_TIER = "(none)"
PRIVATE = "(private)"
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a question goes: `refusal` instead of any tier."""

    route: str | None
    tiers: tuple[str, ...]
    refusal: str | None

    @property
    def asked(self) -> str | None:
        """The tier asked first, if any."""
        return self.tiers[0] if self.tiers and self.refusal is None else None

    @property
    def first(self) -> str:
        return self.asked or NO_TIER


@dataclass(frozen=True, slots=True)
class Replayed:
    id: str
    device: str
    text: str
    before: Outcome
    after: Outcome
    is_private: bool = False
    call: Call | None = None
    """What it costs; None where the question could not be read."""

    @property
    def first_other_tier(self) -> list[str | None] | None:
        """Returns the first pair of tiers, before and after, that are not the same; None where there is none."""
        pairs = zip_longest(self.before.tiers, self.after.tiers)
        return next(([old, new] for old, new in pairs if old != new), None)

    @property
    def is_changed(self) -> bool:
        return self.before != self.after


@click.command("replay")
@click.option(
    "-c", "here", type=click.Path(path_type=Path), metavar="FILE", help="Configuration of the gateway, as elsewhere."
)
@click.option(
    "--config", "new", type=click.Path(path_type=Path), metavar="NEW", help="Another one to decide by; else the same."
)
@click.option(
    "--since", "since_s", type=age, default="7d", show_default=True, metavar="AGE", help="90s, 30min, 12h, 7d."
)
@click.option("-n", "--limit", default=1000, show_default=True, type=click.IntRange(min=1), help="The newest of them.")
@click.option("--show-text", is_flag=True, help="Print the questions, too; never private ones.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def replay(here: Path | None, new: Path | None, since_s: float, limit: int, show_text: bool, is_json: bool) -> None:
    """Decide past requests again, by this configuration or by NEW, and say what would change; nothing is stored.

    Shows the routes and the order of tiers that would be others, how many questions each tier would get first, and
    the estimated cost where tiers have prices. Tiers are taken to be up. Works while the daemon runs. Exit 3 where
    there is nothing to replay.

    \b
    Examples:
      mqrouter route replay --since 24h
      mqrouter route replay --config new.toml
    """
    from mqrouter.errors import MqrouterError

    settings = load_or_exit(_home(here, new)).settings
    by = settings if new is None else load_or_exit(new).settings
    past, sessions = _past(settings, by, since_s, limit)
    if not past:
        click.echo("nothing to replay", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    quiet_log()
    try:
        replayed = asyncio.run(_replay(by, past, sessions))
    except MqrouterError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(Exit.CONFIG) from error
    calls = [entry.call for entry in replayed if entry.call is not None]
    found = summary(replayed, show_text=show_text) | {"cost": cost(calls, settings.tiers, by.tiers)}
    if is_json:
        echo_json(found)
    else:
        click.echo("\n".join(_lines(found)))


def _home(here: Path | None, new: Path | None) -> Path | None:
    """Returns the configuration whose database is read: where there is no other, the new one's."""
    import os

    from mqrouter.config import find_config
    from mqrouter.errors import ConfigError

    if here is not None:
        return here
    try:
        return find_config(None, os.environ)
    except ConfigError:
        return new


def _past(settings: Settings, by: Settings, since_s: float, limit: int) -> tuple[list[Decided], list[Session | None]]:
    from mqrouter.edge.store.past import decided, sessions_of
    from mqrouter.edge.store.reading import gateway_now
    from mqrouter.edge.system import machine_clocks

    with open_database(settings.database) as db:
        since_ms = gateway_now(db, machine_clocks()).ms - int(1000 * since_s)
        past = decided(db, since_ms, limit)
        return past, list(sessions_of(db, past, by.routing.session_max_age_s))


class _Remembering:
    """An embedder that is asked each text once: devices ask the same things again and again."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self._known: dict[str, Embedding] = {}

    async def embed(self, text: str) -> Embedding:
        if text not in self._known:
            self._known[text] = await self._embedder.embed(text)
        return self._known[text]


async def _replay(settings: Settings, past: Sequence[Decided], sessions: Sequence[Session | None]) -> list[Replayed]:
    from mqrouter import wiring
    from mqrouter.core.decode import decode_question
    from mqrouter.errors import RequestError

    embedder, fingerprint = wiring.embedder(settings)
    await embedder.start()
    try:
        vectors = wiring.example_vectors(settings, fingerprint, is_read_only=True)
        judge = await wiring.build_judge(settings, embedder, vectors)
        limits, topics = wiring.request_limits(settings), wiring.topic_map(settings)
        remembering = _Remembering(embedder)
        found: list[Replayed] = []
        with progress_bar("replaying") as progress:
            for number, (entry, session) in enumerate(zip(past, sessions, strict=True)):
                progress(number, len(past))
                request, text, call = entry.request, "", None
                before, is_private = outcome(entry.decision), entry.request.is_private
                rule = topics.rule_for(request.topic)
                try:
                    question = decode_question(request.payload, request.content_type, request.reply.client_id, limits)
                    text, is_private = question.text, is_private or question.is_private
                    judgement = await judge.judge(
                        question,
                        remembering,
                        strategy=None if rule is None else rule.strategy,
                        session=session,
                        private_by=judge.privacy.look(question, request.topic, request.device),
                    )
                    after = outcome(judgement.to_json())
                    asked = before.asked if entry.answered is None else entry.answered.tier
                    call = Call(asked, after.asked, tokens_of(question.chars, entry.answered))
                except RequestError as error:
                    after = Outcome(None, (), str(error.code))
                found.append(Replayed(request.id, request.device, text, before, after, is_private, call))
        return found
    finally:
        await embedder.close()


def outcome(decision: JsonObject) -> Outcome:
    refusal = decision.get("refusal")
    return Outcome(decision["route"], tuple(decision["tiers"]), None if refusal is None else str(refusal))


def summary(replayed: Sequence[Replayed], *, show_text: bool) -> dict[str, Any]:
    """Returns what would change, JSON-ready; the questions themselves only where they are asked for."""
    changed = [entry for entry in replayed if entry.is_changed]
    routes = Counter(
        (entry.before.route, entry.after.route) for entry in changed if entry.before.route != entry.after.route
    )
    moved = Counter((e.before.first, e.after.first) for e in replayed if e.before.first != e.after.first)
    before, after = Counter(e.before.first for e in replayed), Counter(e.after.first for e in replayed)
    return {
        "requests": len(replayed),
        "changed": len(changed),
        "route_changes": [{"from": old, "to": new, "requests": n} for (old, new), n in routes.most_common()],
        "tier_changes": [{"from": old, "to": new, "requests": n} for (old, new), n in moved.most_common()],
        "tiers": [
            {"tier": name, "before": before[name], "after": after[name], "difference": after[name] - before[name]}
            for name in sorted(before.keys() | after.keys())
        ],
        "differences": [
            {
                "id": entry.id,
                "device": entry.device,
                "route": [entry.before.route, entry.after.route],
                "tiers": [list(entry.before.tiers), list(entry.after.tiers)],
                "first_other_tier": entry.first_other_tier,
                "refusal": [entry.before.refusal, entry.after.refusal],
            }
            | ({"text": PRIVATE if entry.is_private else entry.text} if show_text else {})
            for entry in changed
        ],
    }


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['requests']} requests decided again; {found['changed']} would be treated otherwise"]
    if found["route_changes"]:
        rows = [(c["from"] or ABSTAINED, c["to"] or ABSTAINED, c["requests"]) for c in found["route_changes"]]
        lines += ["", format_table(["ROUTE", "WOULD BE", "REQUESTS"], rows)]
    if found["tier_changes"]:
        rows = [(c["from"], c["to"], c["requests"]) for c in found["tier_changes"]]
        lines += ["", format_table(["FIRST TIER", "WOULD BE", "REQUESTS"], rows)]
    counts = [(tier["tier"], tier["before"], tier["after"], f"{tier['difference']:+d}") for tier in found["tiers"]]
    lines += ["", format_table(["TIER", "ASKED FIRST", "WOULD BE", "DIFFERENCE"], counts)]
    if found.get("cost") is not None:
        lines += ["", *cost_lines(found["cost"])]
    if found["differences"]:
        lines += ["", *_difference_lines(found["differences"])]
    return lines


def _difference_lines(differences: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        (
            entry["id"],
            printable(entry["device"]),
            " -> ".join(route or ABSTAINED for route in entry["route"]),
            " -> ".join(">".join(tiers) or NO_TIER for tiers in entry["tiers"]),
            " -> ".join(tier or NO_TIER for tier in entry["first_other_tier"] or ()) or None,
            *([printable(entry["text"])] if "text" in entry else []),
        )
        for entry in differences[:SHOWN]
    ]
    headers = ["ID", "DEVICE", "ROUTE", "TIERS", "FIRST OTHER", *(["QUESTION"] if "text" in differences[0] else [])]
    left = len(differences) - len(rows)
    return [format_table(headers, rows), *([f"and {left} more: see --json"] if left else [])]
