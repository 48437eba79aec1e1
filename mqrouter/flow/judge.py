"""From a question to its decision and its tiers: what the decide stage, `route explain` and the bench share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mqrouter.core.policy import TierFacts, TierPlan, plan_tiers
from mqrouter.core.request import JsonObject, Question
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.ports import Embedder
from mqrouter.routing.decision import Decision, decide
from mqrouter.routing.signals import Signals, estimate_tokens
from mqrouter.routing.strategy import Strategy


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

    def to_json(self) -> JsonObject:
        plan = self.tier_plan
        return self.decision.to_json() | {
            "tiers": list(plan.tiers),
            "struck": [{"tier": struck.tier, "reason": struck.reason} for struck in plan.struck],
            "when_offline": self.route_plan.when_offline,
            "refusal": plan.refusal,
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

    def plan_for(self, route: str | None) -> RoutePlan:
        """Returns the plan of a route; that of abstaining for none, or for one that a reload took away."""
        return self.abstain if route is None else self.routes.get(route, self.abstain)

    def is_patient(self, route: str | None) -> bool:
        """True where a request of this route may wait for a tier to come back."""
        return self.plan_for(route).when_offline == "queue"

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

    async def judge(self, question: Question, embedder: Embedder) -> Judgement:
        """Returns the decision, its tiers and its reasons. Raises RequestError for a route that does not exist."""
        if question.route is not None and question.route not in self.routes:
            raise RequestError(ErrorCode.NO_ROUTE, f"there is no route {question.route!r}")
        embedding = await embedder.embed(question.text)
        signals = Signals(
            chars=question.chars,
            estimated_tokens=estimate_tokens(question.chars),
            embedding=embedding,
            is_private=question.is_private,
            asked_route=question.route,
        )
        decision = decide(
            self.strategy.score(signals),
            strategy=self.strategy_name,
            min_margin=self.min_margin,
            asked_route=signals.asked_route,
            embedded_tokens=embedding.tokens,
            is_cut=embedding.is_cut,
        )
        plan = self.plan_for(decision.route)
        tiers = plan_tiers(
            plan.to,
            self.tiers,
            is_private=signals.is_private,
            chars=signals.chars,
            fall_back_locally=plan.when_offline == "answer_locally",
        )
        return Judgement(decision, plan, tiers)
