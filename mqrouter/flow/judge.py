"""From a question to its decision and its tiers: what the decide stage, `route explain` and the bench share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from mqrouter.core.conversation import HistoryLimits
from mqrouter.core.policy import TierFacts, TierPlan, plan_tiers, struck_for_now
from mqrouter.core.privacy import NOT_PRIVATE, Privacy, PrivateBy
from mqrouter.core.request import JsonObject, Question
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.ports import Embedder
from mqrouter.routing.answer_confidence import Calibrations
from mqrouter.routing.cascade import Cascade
from mqrouter.routing.decision import Decision, decide
from mqrouter.routing.session import Session, is_referential
from mqrouter.routing.signals import Signals, TierSignal, estimate_tokens
from mqrouter.routing.strategy import Strategy
from mqrouter.routing.tier_order import ORDERS_BY_GAIN, Gain, TierOrder


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Where a route's questions go."""

    to: tuple[str, ...]
    when_offline: str
    prompt: str | None


@dataclass(frozen=True, slots=True)
class Judgement:
    decision: Decision
    route_plan: RoutePlan
    tier_plan: TierPlan
    gain: Gain | None = None
    """None where it had no say in the order of the tiers."""
    private_by: PrivateBy = NOT_PRIVATE

    def to_json(self) -> JsonObject:
        plan = self.tier_plan
        return self.decision.to_json() | {
            "tiers": list(plan.tiers),
            "struck": [asdict(struck) for struck in plan.struck],
            "when_offline": self.route_plan.when_offline,
            "refusal": plan.refusal,
            "gain": None if self.gain is None else asdict(self.gain),
            "private_by": self.private_by.names,
        }


@dataclass(frozen=True, slots=True)
class Judge:
    """Everything a decision depends on; a reload replaces it as a whole."""

    strategy_name: str
    strategy: Strategy
    min_margin: float
    routes: Mapping[str, RoutePlan]
    abstain: RoutePlan
    tiers: dict[str, TierFacts]
    prompts: Mapping[str, str]
    others: Mapping[str, Strategy] = field(default_factory=dict)
    """Strategies that a listener or a request may name instead; looking one up may raise ValueError."""
    tier_order: TierOrder | None = None
    """None where the tiers of a route are asked in the order configured."""
    switch_margin: float = 0.0
    session_max_age_s: float = 1_800.0
    session_max_turns: int = 6
    session_max_chars: int = 4_000
    privacy: Privacy = field(default_factory=Privacy)
    calibrations: Calibrations = field(default_factory=dict)
    """Of local answers, by model."""

    @property
    def history_limits(self) -> HistoryLimits:
        return HistoryLimits(self.session_max_turns, self.session_max_chars, int(1000 * self.session_max_age_s))

    def plan_for(self, route: str | None) -> RoutePlan:
        """Returns the plan of a route; that of abstaining for none, or for one that a reload took away."""
        return self.abstain if route is None else self.routes.get(route, self.abstain)

    def is_patient(self, route: str | None) -> bool:
        """True where a request of this route may wait for a tier to come back."""
        return self.plan_for(route).when_offline in ("queue", "answer_then_refine")

    def refines(self, route: str | None) -> bool:
        """True where a request of this route may get a provisional answer from this device first."""
        return self.plan_for(route).when_offline == "answer_then_refine"

    def impatient_routes(self) -> list[str | None]:
        """Returns the routes that want an answer now; None stands for the questions no route claimed."""
        return [route for route in (*self.routes, None) if not self.is_patient(route)]

    def offline_code(self, route: str | None) -> ErrorCode:
        """Returns what an impatient route's sender is told when no tier is up."""
        is_rejected = self.plan_for(route).when_offline == "reject"
        return ErrorCode.OFFLINE_REJECTED if is_rejected else ErrorCode.UPSTREAM_FAILED

    def prompt_for(self, route: str | None) -> str | None:
        name = self.plan_for(route).prompt
        return None if name is None else self.prompts.get(name)

    def least_confidence(self, strategy: str | None) -> float | None:
        """Returns what a local answer must reach; None where the strategy that decided has no opinion on answers."""
        name = self.strategy_name if strategy is None else strategy
        found = self._strategy(name) if name == "cascade" else None
        return found.least_confidence if isinstance(found, Cascade) else None

    async def judge(
        self,
        question: Question,
        embedder: Embedder,
        *,
        strategy: str | None = None,
        session: Session | None = None,
        tiers: Mapping[str, TierSignal] | None = None,
        private_by: PrivateBy | None = None,
    ) -> Judgement:
        """Returns the decision, its tiers and its reasons.

        `strategy` is the listener's; the question's own goes before it. Without `tiers` all are taken to be up;
        without `private_by` nothing is known of where the question came from.
        Raises RequestError for a route that does not exist, or a strategy that cannot be used here.
        """
        if question.route is not None and question.route not in self.routes:
            raise RequestError(ErrorCode.NO_ROUTE, f"there is no route {question.route!r}")
        name = question.strategy or strategy or self.strategy_name
        chosen = self._strategy(name)
        if session is not None and session.route not in self.routes:
            session = None  # a reload took its route away
        private = self.privacy.look(question) if private_by is None else private_by
        embedding = await embedder.embed(question.text)
        signals = Signals(
            chars=question.chars,
            estimated_tokens=estimate_tokens(question.chars),
            embedding=embedding,
            is_private=private.is_private,
            asked_route=question.route if question.route is not None or session is None else session.route,
            text=question.text,
            tiers=dict.fromkeys(self.tiers, TierSignal(True, None)) if tiers is None else tiers,
        )
        decision = decide(
            chosen.score(signals),
            strategy=name,
            min_margin=self.min_margin,
            asked_route=question.route,
            embedded_tokens=embedding.tokens,
            is_cut=embedding.is_cut,
            session=session,
            is_referential=session is not None and is_referential(question.text),
            switch_margin=self.switch_margin,
        )
        plan = self.plan_for(decision.route)
        wanted, gain = self._ordered(plan.to, decision, signals, session)
        tier_plan = plan_tiers(
            wanted,
            self.tiers,
            is_private=signals.is_private,
            chars=signals.chars,
            fall_back_locally=plan.when_offline == "answer_locally"
            or (plan.when_offline == "answer_then_refine" and question.accepts_provisional),
            is_redactable=private.is_redactable,
        )
        if tier_plan.refusal is ErrorCode.PRIVATE_UNANSWERABLE:
            tier_plan = replace(
                tier_plan, refusal_message=f"{tier_plan.refusal_message}; it is private: {private.reason}"
            )
        over = {name: tier.over for name, tier in signals.tiers.items() if tier.over is not None}
        return Judgement(decision, plan, struck_for_now(tier_plan, over), gain, private)

    def _strategy(self, name: str) -> Strategy:
        if name == self.strategy_name:
            return self.strategy
        try:
            return self.others[name]
        except (KeyError, ValueError) as error:
            why = "this gateway has no such strategy" if isinstance(error, KeyError) else str(error)
            raise RequestError(ErrorCode.BAD_REQUEST, f"the strategy {name!r} cannot be used: {why}") from error

    def _ordered(
        self, to: tuple[str, ...], decision: Decision, signals: Signals, session: Session | None
    ) -> tuple[tuple[str, ...], Gain | None]:
        """Returns a route's tiers in the order in which this question is to ask them, and what gain had a say in it."""
        if isinstance(cascade := self._strategy(decision.strategy), Cascade):
            return cascade.order(to, {name for name, tier in self.tiers.items() if tier.is_local}), None
        if self.tier_order is None or decision.strategy not in ORDERS_BY_GAIN or len(to) < 2:
            return to, None
        is_same = session is not None and session.route == decision.route
        return self.tier_order.order(to, signals, session=session.tiers if session is not None and is_same else ())
