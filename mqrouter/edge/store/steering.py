"""What steers the queue from outside: operators, of whom every action leaves a row, and tiers that want a rest."""

from __future__ import annotations

import sqlite3

from mqrouter.core.records import Pause

KEPT_ACTIONS = 10_000


def record(db: sqlite3.Connection, action: str, target: str, actor: str, now_ms: int) -> None:
    db.execute(
        "INSERT INTO actions (at_ms, actor, action, target) VALUES (?, ?, ?, ?)", (now_ms, actor, action, target)
    )
    db.execute("DELETE FROM actions WHERE seq <= (SELECT max(seq) FROM actions) - ?", (KEPT_ACTIONS,))


def latest_ms(db: sqlite3.Connection, action: str) -> int | None:
    latest: int | None = db.execute("SELECT max(at_ms) FROM actions WHERE action = ?", (action,)).fetchone()[0]
    return latest


def pause(db: sqlite3.Connection, tier: str, actor: str, now_ms: int) -> None:
    db.execute("INSERT OR IGNORE INTO paused (tier, at_ms, actor) VALUES (?, ?, ?)", (tier, now_ms, actor))
    record(db, "pause", tier, actor, now_ms)


def resume(db: sqlite3.Connection, tier: str, actor: str, now_ms: int) -> None:
    db.execute("DELETE FROM paused WHERE tier = ?", (tier,))
    record(db, "resume", tier, actor, now_ms)


def paused(db: sqlite3.Connection) -> dict[str, Pause]:
    return {row["tier"]: Pause(row["at_ms"], row["actor"]) for row in db.execute("SELECT * FROM paused")}


def pause_route(db: sqlite3.Connection, route: str, actor: str, now_ms: int) -> None:
    db.execute("INSERT OR IGNORE INTO paused_routes (route, actor, at_ms) VALUES (?, ?, ?)", (route, actor, now_ms))
    record(db, "pause", f"route {route}", actor, now_ms)


def resume_route(db: sqlite3.Connection, route: str, actor: str, now_ms: int) -> None:
    db.execute("DELETE FROM paused_routes WHERE route = ?", (route,))
    record(db, "resume", f"route {route}", actor, now_ms)


def paused_routes(db: sqlite3.Connection) -> dict[str, Pause]:
    return {row["route"]: Pause(row["at_ms"], row["actor"]) for row in db.execute("SELECT * FROM paused_routes")}


def hold(db: sqlite3.Connection, tier: str, until_ms: int) -> None:
    db.execute("INSERT OR REPLACE INTO holds (tier, until_ms) VALUES (?, ?)", (tier, until_ms))


def holds(db: sqlite3.Connection) -> dict[str, int]:
    return {row["tier"]: row["until_ms"] for row in db.execute("SELECT tier, until_ms FROM holds")}
