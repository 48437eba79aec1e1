"""What is going on, as it happens, at QoS 0: metadata only, and of private requests nothing at all."""

from __future__ import annotations

import json
from collections.abc import Collection

from mqrouter.core.records import OutboxRow, StoredRequest
from mqrouter.core.request import JsonObject, OutMessage
from mqrouter.flow.judge import Judgement
from mqrouter.flow.ports import Announcer, Clock


class Events:
    """Those of `kinds` go to PREFIX/event/KIND; what the link does not take at once is dropped."""

    def __init__(self, announcer: Announcer, clock: Clock, prefix: str, kinds: Collection[str]) -> None:
        self._announcer = announcer
        self._clock = clock
        self._prefix = prefix
        self._kinds = frozenset(kinds)

    def decided(self, request: StoredRequest, judgement: Judgement) -> None:
        if "decision" not in self._kinds or request.is_private or judgement.private_by.is_private:
            return
        decision, plan = judgement.decision, judgement.tier_plan
        self._say(
            "decision",
            {
                "id": request.id,
                "device": request.device,
                "route": decision.route,
                "reason": str(decision.reason),
                "strategy": decision.strategy,
                "score": round(decision.score, 4),
                "margin": round(decision.margin, 4),
                "threshold": round(decision.threshold, 4),
                "tiers": list(plan.tiers),
                "struck": {struck.tier: str(struck.reason) for struck in plan.struck},
                "refusal": plan.refusal,
            },
        )

    def finished(self, row: OutboxRow) -> None:
        """The broker has the last word on a request."""
        is_decided = row.route is not None or row.tier is not None  # before, nobody knows whether it is private
        if "finished" not in self._kinds or not is_decided or row.is_private or row.is_provisional:
            return
        self._say(
            "finished",
            {
                "id": row.request_id,
                "device": row.device,
                "state": "delivered" if row.state == "answered" else str(row.state),
                "code": row.reason,
                "route": row.route,
                "tier": row.tier,
                "model": row.model,
                "attempts": row.attempts,
                "elapsed_ms": self._clock.now_ms() - row.received_at_ms,
            },
        )

    def tier_changed(self, name: str, was: str, state: str) -> None:
        if "tier" in self._kinds:
            self._say("tier", {"tier": name, "was": was, "state": state})

    def _say(self, kind: str, body: JsonObject) -> None:
        message = OutMessage(f"{self._prefix}/event/{kind}", json.dumps(body).encode(), None, "application/json", ())
        self._announcer.announce(message)
