"""One look at requests: read from the database, explained by the daemon where it runs, drawn as a table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mqrouter.cli.common import Exit, echo_json
from mqrouter.cli.daemon import open_database, standing_of_daemon
from mqrouter.cli.selection import ABOUT_ERRORS, selection_of
from mqrouter.cli.tables import format_age, format_table, printable

if TYPE_CHECKING:
    from mqrouter.core.waiting import Standing
    from mqrouter.settings import Gateway, Settings

AS_OF = "the daemon is not running: why they wait is what was known last"
REASON_WIDTH = 120  # two tiers and what is wrong with each
HEADERS = ("ID", "STATE", "AGE", "DEVICE", "ROUTE", "TIER", "WAITS FOR", "NEXT TRY", "TRIES", "REASON")


@dataclass(frozen=True, slots=True)
class Listing:
    """What to look at: a filter as the API takes it, in which order, how much, and after which number."""

    wanted: dict[str, Any]
    sort: str
    limit: int
    after: int | None


@dataclass(frozen=True, slots=True)
class Found:
    rows: list[dict[str, Any]]
    after: int | None
    standing: Standing


def look(gateway: Gateway, listing: Listing) -> Found:
    """Ends the process with a message where the database cannot be read."""
    from mqrouter.core.steering import Sort
    from mqrouter.core.waiting import explained
    from mqrouter.edge.store.reading import gateway_now, last_known, page_of
    from mqrouter.edge.system import machine_clocks

    rows: list[dict[str, Any]] = []
    after, sort, wanted = listing.after, Sort(listing.sort), selection_of(listing.wanted)
    standing = standing_of_daemon(gateway.control_socket)
    with open_database(gateway.database) as db:
        now = gateway_now(db, machine_clocks())
        while True:  # a page that looked far and found little says where to look on
            page = page_of(db, wanted, limit=listing.limit - len(rows), now=now, sort=sort, after=after)
            rows += page.rows
            after = page.next
            if after is None or len(rows) == listing.limit:
                break
        standing = standing or last_known(db, now)
    return Found([explained(row, standing) for row in rows], after, standing)


def list_or_exit(
    gateway: Gateway, settings: Settings | None, listing: Listing, is_json: bool, nothing: str
) -> NoReturn:
    """Shows what there is; ends the process with exit 3 where there is nothing."""
    found = look(gateway, listing)
    if is_json:
        echo_json(found.rows)
    elif found.rows:
        click.echo(table(found.rows))
        say_as_of(found.standing, found.rows)
    if not found.rows and (why := why_nothing(settings, listing) or (None if is_json else nothing)):
        click.echo(why, err=True)
    if found.rows and found.after is not None:
        click.echo(f"there may be more: --after {found.after}", err=True)
    raise SystemExit(Exit.OK if found.rows else Exit.NOTHING_FOUND)


def block_of(gateway: Gateway, settings: Settings | None, listing: Listing, nothing: str) -> str:
    """Returns the same as one block of text."""
    found = look(gateway, listing)
    if not found.rows:
        return why_nothing(settings, listing) or nothing
    is_old = not found.standing.is_live and any(row["waits_because"] for row in found.rows)
    return table(found.rows) + (f"\n{AS_OF}" if is_old else "")


def why_nothing(settings: Settings | None, listing: Listing) -> str | None:
    """Returns what a filter names that there is not, or does not look at; None where it just matched nothing."""
    kinds = () if settings is None else (("route", settings.routes), ("tier", settings.tiers))
    for kind, known in kinds:
        name = listing.wanted.get(kind)
        if name is not None and name not in known:
            return f"there is no {kind} {printable(name)}{_nearest(name, known)}"
    return ABOUT_ERRORS if "error" in listing.wanted else None


def _nearest(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known) or 'none'}"


def say_as_of(standing: Standing, rows: list[dict[str, Any]]) -> None:
    """Says it where the reasons are not of this moment."""
    if not standing.is_live and any(row["waits_because"] for row in rows):
        click.echo(AS_OF, err=True)


def table(rows: list[dict[str, Any]]) -> str:
    return format_table(
        HEADERS,
        [
            (
                row["id"],
                row["state"],
                format_age(row["age_s"]),
                row["device"],
                row["route"],
                row["tier"],
                row["waiting_for"],
                format_age(row["next_attempt_in_s"]),
                row["attempts"],
                row["waits_because"] or _end_of(row),
            )
            for row in rows
        ],
        last_width=REASON_WIDTH,
    )


def _end_of(row: dict[str, Any]) -> str | None:
    return f"{row['reason']}: {row['detail']}" if row["reason"] and row["detail"] else row["reason"]
