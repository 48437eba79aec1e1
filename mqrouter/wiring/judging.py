"""The judge over the configured routes, with the strategies that are named or compared."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from mqrouter.config.keys import dotted
from mqrouter.config.toml_positions import KeyPath
from mqrouter.core.privacy import Privacy
from mqrouter.edge.embedder import LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors, Matrix
from mqrouter.errors import ConfigError, Problem
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.routing.artefact import Artefact, ArtefactError
from mqrouter.routing.head import Head
from mqrouter.routing.registry import Strategies, strategy_factory, strategy_names
from mqrouter.routing.strategy import Options, RouteExamples, Rule, Strategy, Weights
from mqrouter.routing.tier_order import TierOrder
from mqrouter.settings import Settings
from mqrouter.wiring.learnt import NEEDS_HEAD, load_calibrations, load_head, load_learnt
from mqrouter.wiring.tiers import tier_facts

log = structlog.get_logger("routing")


async def route_examples(
    settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors
) -> dict[str, RouteExamples]:
    """Returns the configured routes, their examples embedded."""

    async def embed(text: str) -> Matrix:
        return (await embedder.embed(text)).vector

    texts = [text for route in settings.routes.values() for text in route.examples]
    matrix = await vectors.embed_all(texts, embed)
    examples: dict[str, RouteExamples] = {}
    start = 0
    for name, route in settings.routes.items():
        end = start + len(route.examples)
        threshold = settings.routing.threshold if route.threshold is None else route.threshold
        rule = Rule(tuple(route.words), tuple(route.patterns))
        examples[name] = RouteExamples(tuple(route.examples), matrix[start:end], threshold, tuple(route.to), rule)
        start = end
    return examples


def configured_strategies(settings: Settings) -> dict[KeyPath, str]:
    """Returns the strategies that the configuration names, by their keys."""
    found: dict[KeyPath, str] = {("routing", "strategy"): settings.routing.strategy}
    listeners = enumerate(settings.listeners)
    return found | {("listeners", i, "strategy"): entry.strategy for i, entry in listeners if entry.strategy}


def strategy_options(settings: Settings, head: Head | None) -> Options:
    weights = settings.routing.weights
    return Options(
        head=head,
        weights=Weights(weights.tokens, weights.centroid, weights.latency),
        tiers=tuple(settings.tiers),
        first="semantic" if head is None else "learned",
        min_answer_confidence=settings.routing.min_answer_confidence,
    )


def tier_order(settings: Settings, learnt: Artefact | None) -> TierOrder | None:
    """Returns how a route's tiers are put in order by expected gain; None where that is off, or was not learnt."""
    routing = settings.routing
    if routing.min_gain is None or learnt is None or learnt.gain is None:
        return None
    return TierOrder(learnt.gain, routing.min_gain, tuple(settings.tiers), routing.session_switch_margin)


async def build_strategies(settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors) -> dict[str, Strategy]:
    """Returns every strategy by name, for comparing them; `learned` only where a head that fits has been trained."""
    examples = await route_examples(settings, embedder, vectors)
    try:
        head = load_head(settings, vectors.fingerprint)
    except ArtefactError:
        head = None
    options = strategy_options(settings, head)
    names = sorted(strategy_names() - (set() if head else {"learned"}))
    return {name: strategy_factory(name)(examples, nearest=0, options=options) for name in names}


async def build_judge(settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors) -> Judge:
    """Returns the judge over the configured routes. Raises ConfigError where the strategy lacks what it needs."""
    routing = settings.routing
    named = configured_strategies(settings)
    examples = await route_examples(settings, embedder, vectors)
    learnt = _learnt_or_raise(settings, vectors.fingerprint, named)
    options = strategy_options(settings, None if learnt is None else learnt.head)
    strategies = Strategies(examples, nearest=routing.nearest_examples, options=options)
    for path, name in named.items():
        try:
            strategies.build(name)
        except ValueError as error:
            raise ConfigError([Problem(dotted(path), str(error))]) from error
    return Judge(
        strategy_name=routing.strategy,
        strategy=strategies[routing.strategy],
        others=strategies,
        min_margin=routing.min_margin,
        routes={
            name: RoutePlan(tuple(route.to), route.when_offline, route.prompt)
            for name, route in settings.routes.items()
        },
        abstain=RoutePlan(tuple(routing.abstain.to), routing.abstain.when_offline, routing.abstain.prompt),
        tiers=tier_facts(settings.tiers),
        prompts=settings.prompts,
        tier_order=tier_order(settings, learnt),
        switch_margin=routing.session_switch_margin,
        session_max_age_s=routing.session_max_age_s,
        session_max_turns=routing.session_max_turns,
        session_max_chars=routing.session_max_chars,
        privacy=privacy(settings),
        calibrations=load_calibrations(settings),
    )


def privacy(settings: Settings) -> Privacy:
    rules = settings.privacy
    return Privacy(tuple(rules.topics), tuple(rules.devices), frozenset(rules.detect), rules.region)


def _learnt_or_raise(settings: Settings, fingerprint: str, named: Mapping[KeyPath, str]) -> Artefact | None:
    """Returns what was trained and fits. Raises ConfigError where what does not fit is needed by name."""
    try:
        return load_learnt(settings, fingerprint)
    except ArtefactError as error:
        path = next((path for path, name in named.items() if name in NEEDS_HEAD), None)
        if path is not None:
            raise ConfigError([Problem(dotted(path), str(error))]) from error
        log.warning("routing.head_unusable", error=str(error))
        return None
