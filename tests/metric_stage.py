"""Every metric there is, from a daemon whose parts stand still: the store is real, the rest answers as told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes import FakeClock, FlakyDatabase

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.spending import Meter, TierLimits, Tokens
from mqrouter.edge.chat import WorkerState
from mqrouter.edge.metrics import Exposition, Metrics
from mqrouter.edge.mqtt.link import LinkStatus
from mqrouter.edge.power import Sensors
from mqrouter.edge.store.space import Space
from mqrouter.edge.store.store import Store
from mqrouter.flow.tiers import TierBoard
from mqrouter.gauges import Gauges
from mqrouter.report import Report
from mqrouter.routing.decision import Decision, Reason
from mqrouter.settings import Settings

PRICED = TierLimits(budget_per_day=2.0, prompt_price=10.0, completion_price=20.0)

WITH_ROUTE = {
    "tiers": {"hub": {"kind": "ollama", "url": "http://127.0.0.1:9", "model": "m"}},
    "routes": {"frost": {"to": ["hub"], "examples": ["will there be frost?"]}},
}


class MetricStage:
    """Route `frost`; tiers `edge`, with a worker, and `hub`, with a price; `sys` is where sensors are looked for."""

    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock, sys: Path) -> None:
        self.store, self.database, self.clock = store, database, clock
        meters = {"hub": Meter(PRICED)}
        breakers = {name: Breaker(2, Backoff(1.0, 60.0)) for name in ("edge", "hub")}
        self.board = TierBoard(breakers, clock, lambda: 0.5, meters=meters)
        self.metrics = Metrics(meters)
        self.intake_counts: Counter[str] = Counter()
        self.level = DiskLevel.ENOUGH
        worker = SimpleNamespace(state=WorkerState.READY, pid=77, starts=3)
        parts: dict[str, Any] = {
            "settings": Settings.model_validate(WITH_ROUTE),
            "clock": clock,
            "link": SimpleNamespace(status=LinkStatus(True, "5", None, 4)),
            "store": store,
            "intake": SimpleNamespace(counts=self.intake_counts, is_store_failing=False),
            "room": SimpleNamespace(report=lambda: {"free_bytes": 1e9, "total_bytes": 4e9}, level=self.level),
            "salvage": None,
            "deliver": SimpleNamespace(delivered=5, in_flight=2),
            "board": self.board,
            "lanes": [SimpleNamespace(name=name, in_flight=1) for name in ("edge", "hub")],
            "workers": {"edge": worker},
            "lag_ms": lambda share: 0.0,
            "memory": SimpleNamespace(resident_mb=lambda pid: 206.0 if pid == 77 else None),
        }
        self.report, self.sensors = Report(**parts), Sensors(sys)
        self.routes = ["frost"]
        self.gauges = Gauges(
            self.report, Space(database), self.sensors, lambda: True, lambda: self.routes, {"exported": 7}
        )
        self.exposition = Exposition(self.metrics, self.gauges, self.gauges.refresh)

    def tell_everything(self) -> None:
        """Each thing that a stage can tell, once."""
        self.metrics.accepted(3, 0.01)
        self.metrics.embedded(0.003)
        self.metrics.decided(decision(route="frost", margin=0.002), 0.004)
        self.metrics.waited("hub", 0.2)
        self.metrics.attempted("hub", "answered", 0.7)
        self.metrics.used("hub", Tokens(1000, 100))
        self.metrics.published(0.002)
        self.metrics.delivered("hub", 1.2)
        self.metrics.lagged(0.001)

    async def text(self) -> str:
        return (await self.exposition.content()).decode()


def decision(*, route: str | None, margin: float, best: str = "frost", score: float = 0.7) -> Decision:
    reason = Reason.TOO_CLOSE if route is None else Reason.ABOVE_THRESHOLD
    return Decision("semantic", route, reason, best, score, margin, 0.4, (), (), 7, False)
