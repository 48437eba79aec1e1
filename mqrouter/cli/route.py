"""mqrouter route."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.replay import replay

if TYPE_CHECKING:
    from mqrouter.core.request import Question
    from mqrouter.core.spending import Over
    from mqrouter.edge.embedder import LlamaEmbedder
    from mqrouter.flow.judge import Judge, Judgement
    from mqrouter.routing.signals import TierSignal
    from mqrouter.routing.strategy import Strategy
    from mqrouter.settings import Settings


@dataclass(frozen=True, slots=True)
class SeenTiers:
    """How the tiers are doing; `unknown` says why that is a guess, where it is."""

    tiers: dict[str, TierSignal]
    unknown: str | None

    def to_json(self) -> dict[str, Any]:
        return {"tier_signals": {name: asdict(tier) for name, tier in self.tiers.items()}, "unknown": self.unknown}


@click.group("route")
def command() -> None:
    """Explain decisions.

    \b
    Examples:
      mqrouter route explain "my tomatoes have brown spots"
      mqrouter route replay --config new.toml
    """


command.add_command(replay)


@command.command("explain")
@config_option
@click.argument("question")
@click.option("--strategy", metavar="NAME", help="Decide by this one instead of routing.strategy.")
@click.option("--private", "is_private", is_flag=True, help="As if the request were marked private.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def explain(config: Path | None, question: str, strategy: str | None, is_private: bool, is_json: bool) -> None:
    """Say where a question would go, and why: no network, no generation, nothing stored.

    \b
    Example:
      mqrouter route explain "my tomatoes have brown spots"
    """
    if not question.strip():
        raise click.BadParameter("the question is empty", param_hint="QUESTION")
    from mqrouter.errors import MqrouterError
    from mqrouter.routing.registry import strategy_names

    if strategy is not None and strategy not in strategy_names():
        there_are = ", ".join(sorted(strategy_names()))
        raise click.BadParameter(f"no strategy is called {strategy}: there are {there_are}", param_hint="--strategy")
    settings = load_or_exit(config).settings
    try:
        found = asyncio.run(_explain(settings, question, strategy, is_private))
    except MqrouterError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(Exit.CONFIG) from error
    if is_json:
        echo_json(found)
        return
    from mqrouter.cli.queue import format_decision

    click.echo("\n".join([question.strip(), *format_decision(found)]))
    if found["refusal"]:
        click.echo(f"  answer:   error {found['refusal']}")
    click.echo("\n".join([*_format_local_answers(found["local_answers"]), _format_tiers(found)]))
    if found["head_problem"] is not None:
        click.echo(f"  head:     unused: {found['head_problem']}")
    click.echo("\n".join(_format_strategies(found["strategies"])))
    took = ", ".join(f"{step} {ms:.2f} ms" for step, ms in found["took_ms"].items())
    click.echo(f"  took:     {took}; {found['elapsed_ms']:.1f} ms in all")


def _format_strategies(strategies: dict[str, Any]) -> list[str]:
    lines = ["  strategies:"]
    for name, scores in strategies.items():
        best = scores["ranked"][0]
        terms = ", ".join(f"{term['weight']:g} x {term['name']} {term['value']:.3f}" for term in best["terms"])
        lines.append(f"    {name:<10} {best['route']} {best['score']:.3f}{f' = {terms}' if terms else ''}")
        if scope := scores["scope"]:
            lines[-1] += f"; in scope {scope['score']:.2f}, least {scope['threshold']:.2f}"
    return lines


async def _explain(settings: Settings, text: str, strategy: str | None, is_private: bool) -> dict[str, Any]:
    import structlog

    from mqrouter import wiring
    from mqrouter.core.request import Form, Message, Question

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # nothing but the answer is printed
    embedder, fingerprint = wiring.embedder(settings)
    await embedder.start()
    try:
        # The daemon's own file of vectors is left alone: this process may be another user's.
        vectors = wiring.example_vectors(settings, fingerprint, is_read_only=True)
        judge = await wiring.build_judge(settings, embedder, vectors)
        question = Question(text, (Message("user", text),), Form.TEXT, is_private=is_private)
        strategies = await wiring.build_strategies(settings, embedder, vectors)
        seen = daemons_tiers(settings)
        started_s = time.perf_counter()
        judgement = await judge.judge(question, embedder, strategy=strategy, tiers=seen.tiers)
        found = judgement.to_json() | {"elapsed_ms": _ms_since(started_s)} | seen.to_json()
        found |= {"head_problem": wiring.why_head_is_unusable(settings, fingerprint)}
        found["local_answers"] = _local_answers(settings, judge, judgement)
        return found | await _compare(strategies, judge, judgement, embedder, question, seen)
    finally:
        await embedder.close()


def _local_answers(settings: Settings, judge: Judge, judgement: Judgement) -> list[dict[str, Any]]:
    """Returns what an answer of each local tier in line must reach, and whether that is calibrated for its model."""
    from mqrouter import wiring
    from mqrouter.errors import ModelFileError
    from mqrouter.flow.local_answer import least_confidence
    from mqrouter.settings import LocalTier

    found = []
    for name in judgement.tier_plan.tiers:
        if isinstance(tier := settings.tiers[name], LocalTier):
            least = least_confidence(wiring.local_rules(tier), judge, judgement.decision.strategy)
            try:
                calibration = judge.calibrations.get(wiring.chat_fingerprint(settings, tier))
            except ModelFileError:  # `mqrouter check` says so
                calibration = None
            verdicts = None if calibration is None else calibration.good + calibration.bad
            found.append({"tier": name, "least_confidence": least, "calibrated_on": verdicts})
    return found


def _format_local_answers(entries: list[dict[str, Any]]) -> list[str]:
    return [
        f"  judged:   an answer of {entry['tier']} by its form"
        + ("" if entry["least_confidence"] is None else _format_least(entry))
        for entry in entries
    ]


def _format_least(entry: dict[str, Any]) -> str:
    on = entry["calibrated_on"]
    how = "not calibrated" if on is None else f"calibrated on {on} verdicts"
    return f" and its confidence, least {entry['least_confidence']:.2f}, {how}"


async def _compare(
    strategies: dict[str, Strategy],
    judge: Judge,
    judgement: Judgement,
    embedder: LlamaEmbedder,
    question: Question,
    seen: SeenTiers,
) -> dict[str, Any]:
    """Returns what every strategy says, and the time of each step."""
    from mqrouter.core.policy import plan_tiers
    from mqrouter.routing.signals import Signals, estimate_tokens

    text = question.text
    with _stopwatch() as embedding_ms:
        embedding = await embedder.embed(text)
    took_ms = {"embedding": embedding_ms()}
    tokens = estimate_tokens(question.chars)
    signals = Signals(question.chars, tokens, embedding, question.is_private, None, text, seen.tiers)
    said: dict[str, Any] = {}
    for name, strategy in strategies.items():
        with _stopwatch() as strategy_ms:
            scores = strategy.score(signals)
        took_ms[name] = strategy_ms()
        said[name] = {
            "ranked": [asdict(entry) for entry in scores.ranked],
            "scope": None if scores.scope is None else asdict(scores.scope),
        }
    wanted, plan = judgement.route_plan.to, judgement.route_plan
    if judge.tier_order is not None and judgement.gain is not None:
        with _stopwatch() as gain_ms:
            wanted, _ = judge.tier_order.order(wanted, signals)
        took_ms["gain"] = gain_ms()
    with _stopwatch() as policy_ms:
        plan_tiers(
            wanted,
            judge.tiers,
            is_private=question.is_private,
            chars=question.chars,
            fall_back_locally=plan.when_offline == "answer_locally",
        )
    took_ms["policy"] = policy_ms()
    return {"strategies": said, "took_ms": took_ms}


@contextmanager
def _stopwatch() -> Iterator[Callable[[], float]]:
    """Yields what says, afterwards, how many milliseconds it took."""
    took: list[float] = []
    started_s = time.perf_counter()
    yield lambda: took[0]
    took.append(_ms_since(started_s))


def daemons_tiers(settings: Settings) -> SeenTiers:
    """Returns how the running daemon's tiers are doing; as if all were up where it cannot be asked."""
    from mqrouter.cli.daemon import DaemonDownError, DaemonSilentError, status_of_daemon
    from mqrouter.routing.signals import TierSignal

    as_if_up = dict.fromkeys(settings.tiers, TierSignal(True, None))
    path = settings.control_socket
    if path.exists() and not os.access(path, os.W_OK):
        return SeenTiers(as_if_up, "the daemon belongs to another user")
    try:
        status = status_of_daemon(path)
    except DaemonDownError:
        return SeenTiers(as_if_up, "the daemon is not running")
    except DaemonSilentError:
        return SeenTiers(as_if_up, "the daemon does not answer")
    known = {name: _signal(tier) for name, tier in status["tiers"].items()}
    return SeenTiers(as_if_up | {name: tier for name, tier in known.items() if name in as_if_up}, None)


def _signal(tier: dict[str, Any]) -> TierSignal:
    from mqrouter.routing.signals import TierSignal

    latency_ms = None if tier["latency_ms"] is None else tier["latency_ms"] + tier["wait_ms"]
    return TierSignal(tier["usable"], latency_ms, _over(tier.get("limit")))


def _over(limit: dict[str, Any] | None) -> Over | None:
    from mqrouter.core.spending import Over

    return None if limit is None else Over(limit["reason"], limit["until_ms"])


def _format_tiers(found: dict[str, Any]) -> str:
    if found["unknown"] is not None:
        return f"  health:   taken as if every tier were up: {found['unknown']}"
    tiers = [
        f"{name} {'up' if tier['is_up'] else 'not usable'}"
        + ("" if tier["latency_ms"] is None else f" {tier['latency_ms']:.0f} ms")
        for name, tier in found["tier_signals"].items()
    ]
    return f"  health:   {', '.join(tiers)}"


def _ms_since(started_s: float) -> float:
    return round(1000 * (time.perf_counter() - started_s), 3)
