"""What is served over HTTP and the local socket: the API, the metrics and the pages, put over the running parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mqrouter import wiring
from mqrouter.config import Loaded
from mqrouter.console import Console
from mqrouter.edge.metrics import Exposition
from mqrouter.edge.store.store import Store
from mqrouter.edge.system import SystemClock, new_request_id
from mqrouter.edge.web import api
from mqrouter.edge.web.pages.site import PageSite
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.server import WebServer
from mqrouter.flow.bring_in import BringIn
from mqrouter.flow.desk import Desk
from mqrouter.flow.errands import Errands
from mqrouter.flow.explain import Explain
from mqrouter.flow.judge import Judge
from mqrouter.flow.ports import Embedder
from mqrouter.flow.tracing import Traces
from mqrouter.flow.wakeup import Wakeup
from mqrouter.notices import Notices
from mqrouter.report import Report
from mqrouter.routing.registry import strategy_names
from mqrouter.trends import Trends


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    report: Report
    notices: Notices
    trends: Trends
    desk: Desk
    exposition: Exposition
    store: Store
    clock: SystemClock
    traces: Traces
    accepted: Wakeup
    answered: Wakeup
    loaded: Callable[[], Loaded]
    """The configuration in force."""
    judge: Callable[[], Judge | None]
    """None until the embedder is loaded."""
    embedder: Callable[[], Embedder]
    status: Callable[[], dict[str, Any]]
    why_not_ready: Callable[[], list[str]]

    def server(self) -> WebServer:
        """Returns the server, not yet listening. Raises ConfigError where a token's reference leads nowhere."""
        settings = self.report.settings
        bring_in = BringIn(
            self.store,
            self.clock,
            wiring.topic_map(settings),
            wiring.request_limits(settings),
            new_id=new_request_id,
            accepted=self.accepted,
            answered=self.answered,
            traces=self.traces,
        )
        errands = Errands(self.report.room, self.store, self.desk, self.clock, lambda: self.loaded().settings.routes)
        routes = api.routes(
            self.desk,
            bring_in=bring_in.bring_in,
            status=self.status,
            why_not_ready=self.why_not_ready,
            errands=errands.by_name(),
        )
        routes.append(api.metrics_route(self.exposition.content, self.exposition.content_type))
        options = wiring.web_options(settings)
        site = PageSite(self._sources(errands), options.tcp, self.clock.monotonic_s)
        return WebServer(options, routes, self.clock.monotonic_s, site)

    def _sources(self, errands: Errands) -> Sources:
        """What the pages show."""
        console = Console(self.report, self.notices, self.loaded, self.trends.oldest_ms)
        explain = Explain(self.judge, self.embedder, self.report.board)
        return Sources(
            gateway=self.report.settings.gateway.name,
            desk=self.desk,
            trends=self.trends,
            status=self.status,
            snapshot=console.snapshot,
            info=console.info,
            explain=explain.explain,
            feedback=errands.by_name()["feedback"],
            strategies=lambda: sorted(strategy_names()),
            settings=console.settings,
            models=console.models,
        )
