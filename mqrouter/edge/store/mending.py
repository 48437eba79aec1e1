"""From a damaged database to a sound one in its place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import structlog

from mqrouter.edge.store.quarantine import Mark, clear_mark, set_aside, sync_folder
from mqrouter.edge.store.salvage import Salvage, salvage, write_report

log = structlog.get_logger("store")


def mend(path: Path, mark: Mark) -> None:
    """The database is in quarantine, and what reads of it is in a new one; nobody has either open.

    The new one comes into its place by a rename when it is whole: a start that ends half-way is taken up by the next.
    """
    now = datetime.now(UTC)
    folder = set_aside(path, mark, now)
    if not path.exists():
        result = _rebuild(folder / path.name, path, mark.reason, int(1000 * now.timestamp()))
        write_report(folder, result)
        log.error(
            "store.quarantined",
            quarantined_to=result.quarantined_to,
            reason=result.reason,
            requests=result.requests,
            answers=result.answers,
            asked_again=result.asked_again,
            dangling=result.dangling,
            lost_ranges=result.lost_ranges,
            error=result.error,
        )
    clear_mark(path)


def _rebuild(source: Path, path: Path, reason: str, now_ms: int) -> Salvage:
    new = path.with_name(path.name + ".new")
    for suffix in ("", "-journal"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    result = salvage(source, new, reason=reason, now_ms=now_ms)
    new.replace(path)
    sync_folder(path.parent)
    return result
