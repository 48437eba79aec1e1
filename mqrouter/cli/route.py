"""mqrouter route."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit

if TYPE_CHECKING:
    from mqrouter.settings import Settings


@click.group("route")
def command() -> None:
    """Explain decisions."""


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
    click.echo(f"  took:     {found['elapsed_ms']:.1f} ms")


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
        started_s = time.perf_counter()
        judgement = await judge.judge(question, embedder)
        return judgement.to_json() | {"elapsed_ms": round(1000 * (time.perf_counter() - started_s), 2)}
    finally:
        await embedder.close()
