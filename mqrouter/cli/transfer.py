"""mqrouter queue export and import: requests as lines of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from mqrouter.cli.common import Exit, config_option, confirm, gateway_for_orders
from mqrouter.cli.daemon import open_database, order_daemon, reason_of
from mqrouter.cli.selection import filter_of, selection_of, selection_options

FIELDS = ("topic", "payload", "payload_base64", "content_type", "reply_topic", "correlation", "traceparent")
WHY_NOT = {
    "absorbed": "their id or correlation is still known, since they wait, or ended within limits.dedupe_window_s;"
    " an answer there is goes out again",
    "refused": "their senders get an error; see `mqrouter queue list --state dead --newer-than 1h`",
    "reused": "their id or correlation is another question's; their senders get the error correlation_reused",
}
"""Of what the daemon counts."""
STEP_BYTES = 256 * 1024
STEP_LINES = 200


@click.command("export")
@config_option
@selection_options
@click.option("--all", "is_all", is_flag=True, help="Really all requests.")
def export_command(config: Path | None, is_all: bool, **given: Any) -> None:
    """Write requests to standard output, one JSON object a line, with questions and answers, oldest first.

    Works while the daemon is down. Exit 3 where there is none.

    \b
    Example:
      mqrouter queue export --state expired --newer-than 1d > expired.jsonl
    """
    from mqrouter.edge.store.export import export
    from mqrouter.edge.store.reading import gateway_now
    from mqrouter.edge.system import machine_clocks

    wanted = filter_of(given)
    if bool(wanted) == is_all:
        raise click.UsageError("say which requests: options like --state and --newer-than, or --all")
    number = 0
    with open_database(gateway_for_orders(config)[0].database) as db:
        for line in export(db, selection_of(wanted), gateway_now(db, machine_clocks())):
            click.echo(json.dumps(line, ensure_ascii=False))
            number += 1
    click.echo(f"{number} requests", err=True)
    raise SystemExit(Exit.OK if number else Exit.NOTHING_FOUND)


@click.command("import")
@config_option
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Read the file, say what is in it, and change nothing.")
def import_command(config: Path | None, file: IO[str], is_sure: bool, is_dry: bool) -> None:
    """Ask what an export holds again, as if the devices had just published it: new ids, a new time to live.

    The devices get answers, also those that had one. A question that is still known under its id or correlation is
    absorbed: importing twice asks once. FILE may be - for standard input (then with --yes). Needs the running daemon.
    Exit 1 where nothing was asked again, 3 where there is nothing in FILE.

    \b
    Example:
      mqrouter queue import expired.jsonl
    """
    gateway, _ = gateway_for_orders(config)
    entries = list(_entries(file))
    if not entries:
        click.echo(f"mqrouter: there is nothing in {file.name}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if is_dry:
        click.echo(f"{len(entries)} requests would be asked again")
        return
    if not is_sure:
        confirm(f"ask {len(entries)} requests again?")
    counts: Counter[str] = Counter()
    for step in _steps(entries):
        status, report = order_daemon(gateway.control_socket, "/v1/import", {"requests": step})
        if status != 200:
            done = f" ({counts.total()} of {len(entries)} are done)"
            click.echo(f"mqrouter: the daemon could not do that: {reason_of(report)}{done}", err=True)
            raise SystemExit(Exit.FAILED)
        counts.update(report["counts"])
    click.echo(", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    for what, why in WHY_NOT.items():
        if number := counts[what]:
            click.echo(f"{number} of {len(entries)} not asked again: {why}", err=True)
    if not counts["new"]:
        click.echo("mqrouter: nothing was asked again", err=True)
        raise SystemExit(Exit.FAILED)


def _entries(file: IO[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("topic"), str):
            click.echo(f"{file.name}:{number}: no JSON object with a topic; nothing was imported", err=True)
            raise SystemExit(Exit.FAILED)
        yield {name: entry[name] for name in FIELDS if entry.get(name) is not None}


def _steps(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    step: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        length = len(json.dumps(entry))
        if step and (size + length > STEP_BYTES or len(step) == STEP_LINES):
            yield step
            step, size = [], 0
        step.append(entry)
        size += length
    if step:
        yield step
