"""mqrouter route."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.replay import replay

if TYPE_CHECKING:
    from mqrouter.core.spending import Over
    from mqrouter.edge.embedder import LlamaEmbedder
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
    """Explain decisions."""


command.add_command(replay)


@command.command("explain")
@config_option
@click.argument("question")
@click.option("--private", "is_private", is_flag=True, help="As if the request were marked private.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def explain(config: Path | None, question: str, is_private: bool, is_json: bool) -> None:
    """Say where a question would go, and why: no network, no generation, nothing stored.

    \b
    Example:
      mqrouter route explain "my tomatoes have brown spots"
    """
    if not question.strip():
        raise click.BadParameter("the question is empty", param_hint="QUESTION")
    settings = load_or_exit(config).settings
    from mqrouter.errors import MqrouterError

    try:
        found = asyncio.run(_explain(settings, question, is_private))
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
    click.echo(_format_tiers(found))
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


async def _explain(settings: Settings, text: str, is_private: bool) -> dict[str, Any]:
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
        judgement = await judge.judge(question, embedder, tiers=seen.tiers)
        found = judgement.to_json() | {"elapsed_ms": _ms_since(started_s)} | seen.to_json()
        return found | await _compare(strategies, embedder, text, seen)
    finally:
        await embedder.close()


async def _compare(
    strategies: dict[str, Strategy], embedder: LlamaEmbedder, text: str, seen: SeenTiers
) -> dict[str, Any]:
    """Returns what every strategy says, and the time of each step."""
    from mqrouter.routing.signals import Signals, estimate_tokens

    started_s = time.perf_counter()
    embedding = await embedder.embed(text)
    took_ms = {"embedding": _ms_since(started_s)}
    signals = Signals(len(text), estimate_tokens(len(text)), embedding, False, None, text, seen.tiers)
    said: dict[str, Any] = {}
    for name, strategy in strategies.items():
        started_s = time.perf_counter()
        scores = strategy.score(signals)
        took_ms[name] = _ms_since(started_s)
        said[name] = {
            "ranked": [asdict(entry) for entry in scores.ranked],
            "scope": None if scores.scope is None else asdict(scores.scope),
        }
    return {"strategies": said, "took_ms": took_ms}


def daemons_tiers(settings: Settings) -> SeenTiers:
    """Returns how the running daemon's tiers are doing; as if all were up where it cannot be asked."""
    from mqrouter.cli.daemon import DaemonDownError, call_daemon
    from mqrouter.routing.signals import TierSignal

    as_if_up = dict.fromkeys(settings.tiers, TierSignal(True, None))
    path = settings.control_socket
    if path.exists() and not os.access(path, os.W_OK):
        return SeenTiers(as_if_up, "the daemon belongs to another user")
    try:
        _, status = call_daemon(path, "GET", "/v1/status")
    except DaemonDownError:
        return SeenTiers(as_if_up, "the daemon is not running")
    known = {
        name: TierSignal(tier["usable"], tier["latency_ms"], _over(tier.get("limit")))
        for name, tier in status["tiers"].items()
    }
    return SeenTiers(as_if_up | {name: tier for name, tier in known.items() if name in as_if_up}, None)


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
