"""How the daemon is doing, as `mqrouter status` shows it and as one line for the service manager."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mqrouter import __version__
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.states import State
from mqrouter.edge.chat import ChatWorker
from mqrouter.edge.memory import Memory
from mqrouter.edge.mqtt.link import MqttLink
from mqrouter.edge.store.store import Store
from mqrouter.edge.system import machine_clocks
from mqrouter.edge.web.server import WebServer
from mqrouter.flow.deliver import Deliver
from mqrouter.flow.forward import Lane
from mqrouter.flow.intake import Intake
from mqrouter.flow.ports import Clock
from mqrouter.flow.room import Room
from mqrouter.flow.tiers import TierBoard
from mqrouter.settings import Settings


@dataclass(frozen=True, slots=True)
class Report:
    """Reads the running parts; changes none. `settings` are those the daemon was started with."""

    settings: Settings
    clock: Clock
    link: MqttLink
    store: Store
    intake: Intake
    room: Room
    salvage: Mapping[str, Any] | None
    """What the latest damaged database came to, for as long as its quarantine is there."""
    deliver: Deliver
    board: TierBoard
    lanes: Sequence[Lane]
    workers: Mapping[str, ChatWorker]
    lag_ms: Callable[[float], float]
    memory: Memory = field(default_factory=Memory)

    def full(
        self,
        *,
        config_hash: str,
        restart_needed: Sequence[str],
        is_ready: bool,
        uptime_s: float,
        abstained: int,
        web: WebServer | None,
    ) -> dict[str, Any]:
        """Returns everything, JSON-ready."""
        link = self.link.status
        shown = (State.RECEIVED, State.PENDING, State.LEASED, State.DROPPED)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "gateway": self.settings.gateway.name,
            "config_hash": config_hash,
            "restart_needed": list(restart_needed),
            "uptime_s": round(uptime_s, 1),
            "clock_offset_s": round((machine_clocks().wall_ms - self.clock.now_ms()) / 1000, 1),
            "ready": is_ready,
            "broker": {
                "address": f"{self.settings.mqtt.host}:{self.settings.mqtt.port}",
                "connected": link.is_connected,
                "protocol": link.protocol,
                "error": link.error,
                "connections": link.connections,
            },
            "http": self._http(web),
            "degraded": self.degraded(),
            "store_failing": self.intake.is_store_failing,
            "disk": self.room.report(),
            "salvage": None if self.salvage is None else dict(self.salvage),
            "requests": {str(state): self.store.counts[state] for state in shown},
            "queue": self._queue(),
            "accepted": dict(self.intake.counts) | {"dropped": self.store.dropped},
            "abstained": abstained,
            "delivered": self.deliver.delivered,
            "answers": {"waiting": self.store.holdings.answers, "given_up": self.store.undelivered},
            "paused_routes": {
                name: {"paused_by": pause.actor, "for_s": round((self.clock.now_ms() - pause.at_ms) / 1000, 1)}
                for name, pause in self.store.paused_routes.items()
            },
            "tiers": {lane.name: self._tier(lane) for lane in self.lanes},
            "loop_lag_ms": {"p50": round(self.lag_ms(0.5), 2), "p99": round(self.lag_ms(0.99), 2)},
        }

    def degraded(self) -> list[str]:
        """Returns what keeps the gateway from taking questions."""
        found = [] if self.room.level is DiskLevel.ENOUGH else [f"disk_{self.room.level}"]
        return [*found, "store_failing"] if self.intake.is_store_failing else found

    def line(self) -> str:
        broker = "connected" if self.link.is_connected else "no broker"
        down = [name for name in self.board.breakers if not self.board.is_available(name)]
        tiers = f"not usable: {', '.join(down)}" if down else "all tiers usable"
        trouble = f"DEGRADED: {', '.join(self.degraded())}; " if self.degraded() else ""
        return f"{trouble}{broker}; {self.store.counts[State.PENDING]} pending; {tiers}"

    def _http(self, web: WebServer | None) -> dict[str, Any]:
        """Returns where the page is: no `url` while nothing listens there, and an `error` where that stays so."""
        port, host = None if web is None else web.port, self.settings.http.host
        return {
            "enabled": self.settings.http.enabled,
            "url": None if port is None else f"http://{f'[{host}]' if ':' in host else host}:{port}",
            "error": None if web is None else web.error,
        }

    def _queue(self) -> dict[str, Any]:
        held, limits = self.store.holdings.total, self.settings.queue
        return {
            "requests": held.requests,
            "bytes": held.bytes,
            "devices": len(self.store.holdings.devices),
            "max_requests": limits.max_requests,
            "max_bytes": limits.max_bytes,
            "when_full": str(limits.when_full),
        }

    def _levels(self, name: str) -> list[dict[str, Any]]:
        """Returns what is used of each limit of a tier, and in how many seconds there is more room."""
        meter, now_ms = self.board.meters.get(name), self.clock.now_ms()
        return [
            {
                "name": level.name,
                "used": round(level.used, 6),
                "limit": level.limit,
                "resets_in_s": None if level.resets_at_ms is None else round((level.resets_at_ms - now_ms) / 1000, 1),
            }
            for level in ([] if meter is None else meter.levels(now_ms))
        ]

    def _tier(self, lane: Lane) -> dict[str, Any]:
        breaker = self.board.breakers[lane.name]
        worker, over = self.workers.get(lane.name), self.board.over(lane.name)
        return {
            "breaker": str(breaker.state),
            "tried": lane.name in self.board.tried,
            "usable": self.board.is_available(lane.name),
            "reason": breaker.reason or None,
            "probe_in_s": None if (in_s := breaker.probe_in_s(self.clock.monotonic_s())) is None else round(in_s, 1),
            "held_s": round(breaker.held_s(self.clock.monotonic_s()), 1),
            "paused_by": None if (pause := self.board.paused.get(lane.name)) is None else pause.actor,
            "limit": None if over is None else asdict(over) | {"for_s": round(self.board.over_s(lane.name), 1)},
            "limits": self._levels(lane.name),
            "in_flight": lane.in_flight,
            "latency_ms": None if (p50_ms := self.board.latencies[lane.name].p50_ms) is None else round(p50_ms, 1),
            "wait_ms": round(1000 * load.wait_s, 1) if (load := self.board.loads.get(lane.name)) is not None else 0.0,
            "model": self.settings.tiers[lane.name].model,
        } | ({} if worker is None else {"worker": self._worker(worker)})

    def _worker(self, worker: ChatWorker) -> dict[str, Any]:
        pid = worker.pid
        resident_mb = None if pid is None else self.memory.resident_mb(pid)
        return {
            "state": str(worker.state),
            "pid": pid,
            "resident_mb": None if resident_mb is None else round(resident_mb, 1),
            "loads": worker.starts,
            "idle_s": None if pid is None else round(worker.idle_s, 1),
            "unloaded_because": worker.unloaded_because,
        }
