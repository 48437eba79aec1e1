"""What all strategies promise, and what is each one's own."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from mqrouter.routing.cascade import Cascade
from mqrouter.routing.decision import Scores
from mqrouter.routing.examples import ExampleIndex
from mqrouter.routing.heuristic import Heuristic, compile_pattern
from mqrouter.routing.hybrid import Hybrid
from mqrouter.routing.knn import Knn
from mqrouter.routing.learned import Learned
from mqrouter.routing.perf import Perf
from mqrouter.routing.registry import strategy_factory, strategy_names
from mqrouter.routing.signals import Embedding, Signals, TierSignal, estimate_tokens
from mqrouter.routing.strategy import RANKED, Options, RouteExamples, Rule, Weights
from mqrouter.routing.token import Token
from mqrouter.routing.training import Labelled, train

TIERS = ("edge", "hub", "datacenter")


def clusters(routes: int, examples: int, *, dim: int = 32, seed: int = 3) -> dict[str, RouteExamples]:
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(routes):
        vectors = rng.normal(size=dim) * 1.5 + rng.normal(size=(examples, dim))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found[f"r{number}"] = RouteExamples(
            tuple(f"subject{number} question {i}" for i in range(examples)),
            vectors.astype(np.float32),
            0.3,
            to=(TIERS[number % 3],),
            rule=Rule((f"subject{number}",), (f"valve=#_{number}",)),
        )
    return found


ROUTES = clusters(12, 12)


def trained_options(routes: dict[str, RouteExamples]) -> Options:
    data = Labelled(
        tuple(text for route in routes.values() for text in route.examples),
        np.concatenate([route.vectors for route in routes.values()]),
        np.repeat(np.arange(len(routes)), [len(route.examples) for route in routes.values()]),
        tuple(routes),
    )
    return Options(head=train(data, seed=1).head, tiers=TIERS)


OPTIONS = trained_options(ROUTES)


def signals(route: int = 0, example: int = 0, *, text: str = "", asked: str | None = None, chars: int = 40) -> Signals:
    vector = ROUTES[f"r{route}"].vectors[example]
    tiers = {"edge": TierSignal(True, 500.0), "hub": TierSignal(False, 10.0), "datacenter": TierSignal(True, None)}
    embedding = Embedding(vector, tokens=3, is_cut=False)
    return Signals(chars, estimate_tokens(chars), embedding, False, asked, text, tiers)


@pytest.fixture(params=sorted(strategy_names()))
def scores(request: pytest.FixtureRequest) -> Scores:
    return strategy_factory(request.param)(ROUTES, nearest=2, options=OPTIONS).score(signals(4, asked="r9"))


def test_every_strategy_ranks_the_best_first_and_the_asked_one(scores: Scores) -> None:
    best = [entry.score for entry in scores.ranked[:RANKED]]
    assert best == sorted(best, reverse=True)
    assert "r9" in {entry.route for entry in scores.ranked}
    assert len({entry.route for entry in scores.ranked}) == len(scores.ranked) >= RANKED


@pytest.mark.parametrize("name", sorted(strategy_names()))
def test_every_strategy_is_deterministic(name: str) -> None:
    built = [strategy_factory(name)(ROUTES, nearest=2, options=OPTIONS) for _ in range(2)]
    assert built[0].score(signals(2, text="subject2")) == built[1].score(signals(2, text="subject2"))


@pytest.mark.parametrize("name", ["semantic", "knn", "learned", "cascade", "hybrid"])
def test_strategies_that_see_meaning_find_the_route(name: str) -> None:
    strategy = strategy_factory(name)(ROUTES, nearest=2, options=OPTIONS)
    found = [strategy.score(signals(number, 5, text=f"subject{number}")).ranked[0].route for number in range(12)]
    assert found == list(ROUTES)


def test_learned_scores_are_probabilities() -> None:
    strategy = Learned(ROUTES, nearest=0, options=OPTIONS)
    few = {name: ROUTES[name] for name in list(ROUTES)[:RANKED]}
    scores = Learned(few, nearest=0, options=trained_options(few)).score(signals(3)).ranked
    assert 0.5 < sum(entry.score for entry in scores) <= 1 + 1e-5
    assert all(0 <= entry.score <= 1 for entry in strategy.score(signals(3)).ranked)


def test_learned_without_a_head_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="mqrouter train"):
        Learned(ROUTES, nearest=0)


def test_learned_says_how_far_from_everything_a_question_is() -> None:
    strategy = Learned(ROUTES, nearest=0, options=OPTIONS)
    away = -sum(route.vectors.mean(axis=0) for route in ROUTES.values())
    far = dataclasses.replace(signals(), embedding=Embedding(away / np.linalg.norm(away), 3, False))
    found, near = strategy.score(far).scope, strategy.score(signals()).scope
    assert found is not None and near is not None
    assert found.score < found.threshold <= near.score


def test_hybrid_is_the_weighted_sum_of_its_terms() -> None:
    options = dataclasses.replace(OPTIONS, weights=Weights(tokens=0.5, centroid=0.25, latency=2.0))
    for entry in Hybrid(ROUTES, nearest=0, options=options).score(signals(4)).ranked:
        assert [term.name for term in entry.terms] == ["C_tokens", "Sim_centroid", "H_latency"]
        assert entry.score == pytest.approx(sum(term.value * term.weight for term in entry.terms), abs=1e-6)


@pytest.mark.parametrize(("chars", "tier"), [(10, "edge"), (600, "hub"), (9_000, "datacenter")])
def test_token_matches_length_with_strength(chars: int, tier: str) -> None:
    best = Token(ROUTES, nearest=0, options=OPTIONS).score(signals(chars=chars)).ranked[0]
    assert ROUTES[best.route].to == (tier,)


def test_perf_prefers_tiers_that_are_up_and_quick() -> None:
    scores = Perf(clusters(3, 2), nearest=0, options=OPTIONS).score(signals()).ranked
    assert [(entry.route, entry.score) for entry in scores] == [("r2", 1.0), ("r0", 0.8), ("r1", 0.0)]


def test_heuristic_names_the_rules_that_fired() -> None:
    scores = Heuristic(ROUTES, nearest=0).score(signals(text="Subject3 valve=17_3 please")).ranked
    assert (scores[0].route, scores[0].score, scores[1].score) == ("r3", 1.0, 0.0)
    assert [term.name for term in scores[0].terms] == ["word subject3", "pattern valve=#_3"]


def test_heuristic_knows_beginnings_of_words() -> None:
    rule = {"a": dataclasses.replace(ROUTES["r0"], rule=Rule(("irrigat*",))), "b": ROUTES["r1"]}
    ranked = Heuristic(rule, nearest=0).score(signals(text="when do we start irrigating?")).ranked
    assert ranked[0].route == "a" and ranked[0].score > 0


def test_pattern_cost_is_bounded() -> None:
    started = time.process_time()
    for pattern, text in (
        ("a*" * 40 + "!", "a" * 2000),
        ("*=*;" * 9 + "*#", "=;" * 1000),
        ("# *" * 9 + "!", "1 " * 1000),
    ):
        assert not compile_pattern(pattern).search(text)
    assert time.process_time() - started < 5  # one that goes back and tries again takes for ever


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        ("*valve*", "open the valve", True),
        ("valve=#_#", "valve=17_305 on", True),
        ("valve=#_#", "valve=_3", False),
        ("a*b*c", "a1b2b3c", True),
        ("a*b", "a b", False),
        ("ts=#*mv", "ts=12:mv", True),
        ("zone ##", "zone   12", True),
        ("*", "anything", True),
    ],
)
def test_pattern_finds_what_it_says(pattern: str, text: str, is_found: bool) -> None:
    assert (compile_pattern(pattern).search(text) is not None) is is_found


def test_cascade_asks_the_local_tiers_first() -> None:
    cascade = Cascade(ROUTES, nearest=0, options=OPTIONS)
    assert cascade.order(["hub", "edge", "datacenter"], {"edge"}) == ("edge", "hub", "datacenter")
    assert cascade.judge_answer(0.5).is_kept and not cascade.judge_answer(0.49).is_kept


def test_cascade_of_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="another strategy"):
        Cascade(ROUTES, nearest=0, options=dataclasses.replace(OPTIONS, first="cascade"))


def test_knn_votes_are_shared_out() -> None:
    scores = Knn(ROUTES, nearest=3).score(signals(1))
    assert sum(entry.terms[0].value for entry in scores.ranked) <= 1 + 1e-6
    assert scores.nearest[0].example == ROUTES["r1"].examples[0]


def test_search_by_route_finds_nearly_what_a_full_search_finds() -> None:
    routes = clusters(40, 60, dim=64)
    index = ExampleIndex(routes)
    everything = np.concatenate([route.vectors for route in routes.values()])
    found, wanted = 0, 0
    for number in range(0, 2400, 37):
        question = everything[number]
        best = set(np.argsort(-(everything @ question), kind="stable")[:5].tolist())
        found += len(best & set(index.nearest(question, index.similarities(question), 5).rows))
        wanted += 5
    assert found / wanted > 0.9
