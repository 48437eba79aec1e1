"""How a strategy does on labelled questions it has not seen: decisions made one by one, as the daemon makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mqrouter.routing import metrics
from mqrouter.routing.calibration import Bools, Floats, fit_platt
from mqrouter.routing.gain import GainRegressor, fit_gain, neighbour_gain
from mqrouter.routing.metrics import Interval
from mqrouter.routing.registry import strategy_factory
from mqrouter.routing.signals import Embedding, Signals, estimate_tokens
from mqrouter.routing.softmax import Labels
from mqrouter.routing.strategy import Options, RouteExamples, Strategy
from mqrouter.routing.thresholds import route_thresholds
from mqrouter.routing.training import NONE, Labelled, Progress, folds, train

SEES_MEANING = ("semantic", "knn", "learned")
"""The strategies that tell routes apart by what a question says."""

CALIBRATION_FOLDS = 5
NEIGHBOURS_EXPLAINED = 3

Clock = Callable[[], float]
"""Seconds, rising."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a strategy said, in the order of the questions."""

    chosen: Labels
    score: Floats
    margin: Floats
    scope: Floats
    ms: Floats


@dataclass(frozen=True, slots=True)
class Gate:
    """From answers to confidence, and from confidence to taking a route or abstaining."""

    confidence: Callable[[Answers], Floats]
    thresholds: Floats
    """(routes,)"""
    scope_threshold: float

    def takes(self, answers: Answers) -> Bools:
        """Returns whether each question is given its route, (questions,)."""
        is_sure = self.confidence(answers) >= self.thresholds[answers.chosen]
        taken: Bools = is_sure & (answers.scope >= self.scope_threshold)
        return taken


@dataclass(frozen=True, slots=True)
class IntentReport:
    """None stands for figures that need out-of-scope questions, or for the precision of nothing."""

    strategy: str
    accuracy: float
    macro_f1: float
    auroc: float | None
    out_of_scope_recall: float | None
    """At 95 % of the others kept."""
    calibration_error: float
    coverage: float
    """Share of in-scope questions above their route's threshold, scope aside."""
    precision: float | None
    """Of those."""
    taken: float
    """Share of in-scope questions that also passed for in scope: what the daemon would route."""
    taken_precision: float | None
    """Of all questions routed: one that was out of scope is wrong."""
    out_of_scope_abstained: float | None
    decision_ms: float
    """Median, beyond the embedding."""
    training_s: float


def evaluate_intents(
    strategy: str,
    data: Labelled,
    test: Labelled,
    *,
    seed: int,
    target_precision: float,
    clock: Clock,
    progress: Progress = lambda done, total: None,
) -> IntentReport:
    """Returns the figures of a strategy built from `data`; `test` has the same routes, and NONE for out of scope."""
    started_s = clock()
    built, gate = build(strategy, data, seed, target_precision, progress)
    training_s = clock() - started_s
    inside = answer(built, _only(test, test.labels != NONE), clock)
    outside = answer(built, _only(test, test.labels == NONE), clock)
    truth = _nearest_truth(test, inside.chosen)
    is_right = inside.chosen == truth
    confidence = gate.confidence(inside)
    is_sure, is_taken = confidence >= gate.thresholds[inside.chosen], gate.takes(inside)
    is_leaked = gate.takes(outside)
    has_outside = len(outside.chosen) > 0
    return IntentReport(
        strategy=strategy,
        accuracy=metrics.accuracy(inside.chosen, truth),
        macro_f1=metrics.macro_f1(inside.chosen, truth),
        auroc=metrics.auroc(inside.scope, outside.scope) if has_outside else None,
        out_of_scope_recall=metrics.recall_at_kept(inside.scope, outside.scope) if has_outside else None,
        calibration_error=metrics.calibration_error(confidence, is_right),
        coverage=float(is_sure.mean()),
        precision=_share(is_right, is_sure),
        taken=float(is_taken.mean()),
        taken_precision=_share(np.append(is_right, np.zeros_like(is_leaked)), np.append(is_taken, is_leaked)),
        out_of_scope_abstained=float(1 - is_leaked.mean()) if has_outside else None,
        decision_ms=float(np.median(inside.ms)),
        training_s=training_s,
    )


@dataclass(frozen=True, slots=True)
class Robustness:
    """What a change of wording did, as shares of the questions."""

    strategy: str
    change: str
    changed: float
    """Another decision: another route, or a route where it abstained, or the other way round."""
    flipped: float
    """Another route, taken both times: nobody is told."""


def compare_changed(strategy: str, change: str, gate: Gate, before: Answers, after: Answers) -> Robustness:
    """Returns how often the answers to reworded questions lead to another decision."""
    taken_before, taken_after = gate.takes(before), gate.takes(after)
    is_other = (before.chosen != after.chosen) & taken_before & taken_after
    return Robustness(
        strategy, change, float((is_other | (taken_before != taken_after)).mean()), float(is_other.mean())
    )


def answer(strategy: Strategy, data: Labelled, clock: Clock) -> Answers:
    """Returns what the strategy says to every question of `data`, and how long it took."""
    index = {name: number for number, name in enumerate(data.routes)}
    rows: list[tuple[int, float, float, float, float]] = []
    for text, vector in zip(data.texts, data.vectors, strict=True):
        embedding = Embedding(vector, tokens=0, is_cut=False)
        signals = Signals(len(text), estimate_tokens(len(text)), embedding, False, None, text)
        started_s = clock()
        scores = strategy.score(signals)
        elapsed_s = clock() - started_s
        best = scores.ranked[0]
        margin = best.score - scores.ranked[1].score if len(scores.ranked) > 1 else best.score
        scope = best.score if scores.scope is None else scores.scope.score
        rows.append((index[best.route], best.score, margin, scope, 1000 * elapsed_s))
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 5)
    return Answers(table[:, 0].astype(np.intp), table[:, 1], table[:, 2], table[:, 3], table[:, 4])


def as_routes(data: Labelled, threshold: float = 0.0) -> Mapping[str, RouteExamples]:
    """Returns the in-scope examples by route, in the order of the routes."""
    found = {}
    for number, name in enumerate(data.routes):
        mine = np.flatnonzero(data.labels == number)
        found[name] = RouteExamples(tuple(data.texts[i] for i in mine.tolist()), data.vectors[mine], threshold)
    return found


def build(name: str, data: Labelled, seed: int, target: float, progress: Progress) -> tuple[Strategy, Gate]:
    """Returns a strategy learnt from examples, and the gate set from examples held out of it."""
    factory = strategy_factory(name)
    if name == "learned":
        head = train(data, seed=seed, target_precision=target, progress=progress).head
        built = factory(as_routes(data), nearest=NEIGHBOURS_EXPLAINED, options=Options(head=head))
        return built, Gate(lambda answers: answers.score, np.array(head.thresholds), head.scope_threshold)
    gate = _held_out_gate(name, _only(data, data.labels != NONE), seed, target, progress)
    return factory(as_routes(data), nearest=NEIGHBOURS_EXPLAINED), gate


def _held_out_gate(name: str, data: Labelled, seed: int, target: float, progress: Progress) -> Gate:
    """Returns the calibration of a strategy that has none of its own, from examples held out of it."""
    fold = folds(data.labels, CALIBRATION_FOLDS, np.random.default_rng(seed))
    parts: list[Answers] = []
    for number in range(CALIBRATION_FOLDS):
        progress(number, CALIBRATION_FOLDS + 1)
        strategy = strategy_factory(name)(as_routes(_only(data, fold != number)), nearest=0)
        parts.append(answer(strategy, _only(data, fold == number), lambda: 0.0))
    order = np.argsort(np.concatenate([np.flatnonzero(fold == number) for number in range(CALIBRATION_FOLDS)]))
    held_out = Answers(*(np.concatenate([getattr(part, n) for part in parts])[order] for n in Answers.__slots__))
    is_right = held_out.chosen == data.labels
    platt = fit_platt(np.column_stack([held_out.score, held_out.margin]), is_right)

    def confidence(answers: Answers) -> Floats:
        return platt.many(np.column_stack([answers.score, answers.margin]))

    kept = route_thresholds(confidence(held_out), held_out.chosen, is_right, len(data.routes), target)
    return Gate(confidence, np.array([entry.threshold for entry in kept]), float(np.quantile(held_out.scope, 0.05)))


def _nearest_truth(test: Labelled, chosen: Labels) -> Labels:
    """Returns the labels of the in-scope questions, (questions,): where another is as right and was chosen, that."""
    rows = np.flatnonzero(test.labels != NONE)
    pairs = zip(rows.tolist(), chosen.tolist(), strict=True)
    is_accepted = np.array([route in test.also.get(row, ()) for row, route in pairs], dtype=np.bool_)
    return np.where(is_accepted, chosen, test.labels[rows])


def _only(data: Labelled, keep: Bools) -> Labelled:
    texts = tuple(text for text, is_kept in zip(data.texts, keep.tolist(), strict=True) if is_kept)
    return replace(data, texts=texts, vectors=data.vectors[keep], labels=data.labels[keep])


def _share(is_right: Bools, among: Bools) -> float | None:
    return float(is_right[among].mean()) if among.any() else None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Questions that both tiers answered."""

    vectors: Floats
    """(questions, dim)"""
    forms: Floats
    """(questions, traits); see `gain.form`."""
    chars: Floats
    """(questions,)"""
    gains: Floats
    """(questions,), right of the strong tier less right of the weak one."""


@dataclass(frozen=True, slots=True)
class GainReport:
    strategy: str
    apgr: Interval
    cpt_50: Interval
    cpt_80: Interval
    above_length: Interval
    """APGR above that of the prompt's length, of the same resamples."""


def evaluate_gain(
    data: Outcomes, test: Outcomes, *, seed: int, rounds: int = 400, progress: Progress = lambda done, total: None
) -> tuple[GainRegressor, tuple[GainReport, ...]]:
    """Returns the regressor learnt from `data`, and how well every ranking of `test` recovers its gain."""
    model = fit_gain(data.vectors, data.forms, data.gains, seed=seed)
    rng = np.random.default_rng(seed)
    rankings = {
        "learned": model.predict(test.vectors, test.forms),
        "knn": neighbour_gain(data.vectors, data.gains, test.vectors),
        "token": test.chars,
        "random": rng.random(len(test.gains)),
        "oracle": test.gains,
    }
    reports = []
    for number, (name, ranking) in enumerate(rankings.items()):
        progress(number, len(rankings))
        reports.append(_gain_report(name, ranking, test, seed, rounds))
    return model, tuple(reports)


def _gain_report(name: str, ranking: Floats, test: Outcomes, seed: int, rounds: int) -> GainReport:
    gains, chars = test.gains, test.chars

    def interval(figure: Callable[[Labels], float]) -> Interval:
        return metrics.bootstrap(figure, len(gains), np.random.default_rng(seed), rounds)

    return GainReport(
        name,
        interval(lambda i: metrics.apgr(ranking[i], gains[i])),
        interval(lambda i: metrics.cpt(ranking[i], gains[i], 0.5)),
        interval(lambda i: metrics.cpt(ranking[i], gains[i], 0.8)),
        interval(lambda i: metrics.apgr(ranking[i], gains[i]) - metrics.apgr(chars[i], gains[i])),
    )
