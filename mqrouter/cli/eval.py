"""`mqrouter eval`: how good decisions are, on labelled files."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import FiniteRange, config_option, echo_json
from mqrouter.cli.labelled import (
    FileError,
    Pair,
    embed,
    progress_bar,
    settings_or_starter,
)
from mqrouter.cli.labelled_file import (
    read_also,
    read_labelled,
    read_outcomes,
    read_splits,
    require_examples,
    require_in_scope,
    split_of,
)
from mqrouter.cli.tables import format_figure, format_table

if TYPE_CHECKING:
    from mqrouter.routing.evaluation import GainReport, IntentReport, Outcomes
    from mqrouter.routing.measured import Configured
    from mqrouter.routing.metrics import Interval
    from mqrouter.routing.training import Labelled
    from mqrouter.settings import Settings

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
JSON = click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
AS_ASKED = "as asked"
SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of every draw.")


@click.group("eval")
def command() -> None:
    """Measure decisions on labelled files; nothing is changed.

    \b
    Example:
      mqrouter eval questions farm_questions.jsonl
    """


@command.command("intents")
@config_option
@FILE
@click.option("--train", "train_key", default="train", show_default=True, metavar="KEY", help="Examples to learn from.")
@click.option("--test", "test_key", default="val", show_default=True, metavar="KEY", help="Questions to decide.")
@click.option("--out-of-scope", "outside_key", metavar="KEY", help="Questions of no route, to abstain from.")
@click.option("--out-of-scope-train", "none_key", metavar="KEY", help="Examples of no route, to learn from.")
@click.option("--per-route", type=click.IntRange(min=2), metavar="N", help="Examples a route; without it all.")
@click.option("--target-precision", type=FiniteRange(0, 1), default=0.95, show_default=True)
@click.option("--strategy", "strategies", multiple=True, help="Instead of all that apply; may be repeated.")
@SEED
@JSON
def intents(
    config: Path | None,
    file: Path,
    train_key: str,
    test_key: str,
    outside_key: str | None,
    none_key: str | None,
    per_route: int | None,
    target_precision: float,
    strategies: tuple[str, ...],
    seed: int,
    is_json: bool,
) -> None:
    """Measure route decisions on FILE: JSON with lists of [text, label] under named splits.

    \b
    Example:
      mqrouter eval intents clinc150.json --train train --test val --out-of-scope oos_val --per-route 10
    """
    splits = read_splits(file)
    names = _applicable(strategies, None)
    examples = _drawn(split_of(splits, train_key, "--train"), per_route, seed)
    require_examples(examples, f'{file}: "{train_key}"')
    if none_key:
        examples += [(text, None) for text, _ in split_of(splits, none_key, "--out-of-scope-train")]
    questions = split_of(splits, test_key, "--test")
    require_in_scope(questions, f'{file}: "{test_key}"')
    if outside_key:
        questions = questions + [(text, None) for text, _ in split_of(splits, outside_key, "--out-of-scope")]
    measure = Measure(file, names, seed, target_precision)
    _report_intents(measure, settings_or_starter(config), examples, questions, is_json)


@command.command("questions")
@config_option
@FILE
@click.option("--target-precision", type=FiniteRange(0, 1), default=0.95, show_default=True)
@click.option("--strategy", "strategies", multiple=True, help="Instead of all that apply; may be repeated.")
@SEED
@JSON
def questions(
    config: Path | None,
    file: Path,
    target_precision: float,
    strategies: tuple[str, ...],
    seed: int,
    is_json: bool,
) -> None:
    """Measure the configured routes on FILE: lines of {"question": …, "route": … or null}, or CSV text,label.

    Strategies have the configured words, patterns, tiers and weights; all tiers are up. Thresholds are not the
    configured ones: each strategy's own are set for the target precision on examples held out of it.

    \b
    Example:
      mqrouter eval questions tests/data/farm_questions.jsonl -c config/mqrouter.toml
    """
    settings = settings_or_starter(config)
    configured = configured_routes(settings)
    measure = Measure(file, _applicable(strategies, configured), seed, target_precision, configured)
    asked, examples = read_labelled(file), configured_examples(settings)
    require_examples(examples, "the configuration")
    require_in_scope(asked, file)
    _report_intents(measure, settings, examples, asked, is_json, read_also(file))


@command.command("robustness")
@config_option
@FILE
@click.option("--target-precision", type=FiniteRange(0, 1), default=0.95, show_default=True)
@click.option("--strategy", "strategies", multiple=True, help="Instead of all that apply; may be repeated.")
@SEED
@JSON
def robustness(
    config: Path | None, file: Path, target_precision: float, strategies: tuple[str, ...], seed: int, is_json: bool
) -> None:
    """Measure which decisions change with typos, case, politeness, other words, numbers or a negation.

    \b
    Example:
      mqrouter eval robustness tests/data/farm_questions.jsonl -c config/mqrouter.toml
    """
    from mqrouter.routing.evaluation import answer, build, compare_changed

    settings = settings_or_starter(config)
    configured = configured_routes(settings)
    names = _applicable(strategies, configured)
    examples, asked = configured_examples(settings), read_labelled(file)
    require_examples(examples, "the configuration")
    wordings = _wordings([text for text, _ in asked], seed)
    texts = [text for text, _ in examples] + [text for wording in wordings.values() for text in wording]
    vectors = embed(settings, texts).vectors
    routes = tuple(sorted({label for _, label in examples if label is not None}))
    data = labelled(examples, vectors[: len(examples)], routes)
    reports = []
    for name in names:
        with progress_bar(name) as progress:
            built, gate = build(name, data, seed, target_precision, progress, configured)
        answers = {}
        for number, (change, wording) in enumerate(wordings.items()):
            start = len(examples) + number * len(asked)
            pairs: list[Pair] = [(text, None) for text in wording]
            reworded = labelled(pairs, vectors[start : start + len(asked)], routes)
            answers[change] = answer(built, reworded, lambda: 0.0, configured.options.tiers)
        before = answers.pop(AS_ASKED)
        reports += [compare_changed(name, change, gate, before, after) for change, after in answers.items()]
    if is_json:
        echo_json({"questions": len(asked), "seed": seed, "robustness": [asdict(report) for report in reports]})
        return
    rows = [(r.strategy, r.change, f"{r.changed:.3f}", f"{r.flipped:.3f}") for r in reports]
    click.echo(format_table(["STRATEGY", "CHANGE", "OTHER DECISION", "OTHER ROUTE"], rows))
    click.echo(f"\nshares of {len(asked)} questions; OTHER ROUTE was taken without abstaining before or after.")


@command.command("gain")
@config_option
@FILE
@click.option("--train-fraction", type=FiniteRange(0.05, 0.95), default=0.5, show_default=True)
@click.option("--rounds", type=click.IntRange(min=20), default=400, show_default=True, help="Bootstrap resamples.")
@SEED
@JSON
def gain(config: Path | None, file: Path, train_fraction: float, rounds: int, seed: int, is_json: bool) -> None:
    """Measure when the strong tier is worth it, on FILE: CSV with prompt,weak_correct,strong_correct[,subject].

    \b
    Example:
      mqrouter eval gain outcomes.csv --train-fraction 0.5 --seed 0
    """
    from mqrouter.routing.evaluation import evaluate_gain

    prompts, gains = read_outcomes(file)
    learnt, rest = _halves(file, config, prompts, gains, train_fraction, seed)
    with progress_bar("evaluating") as progress:
        model, reports = evaluate_gain(learnt, rest, seed=seed, rounds=rounds, progress=progress)
    about = {"trained_on": len(learnt.gains), "tested_on": len(rest.gains), "trust": model.trust}
    if is_json:
        echo_json(about | {"penalty": model.penalty, "strategies": [asdict(report) for report in reports]})
        return
    click.echo(
        format_table(["STRATEGY", "APGR", "CPT(50)", "CPT(80)", "ABOVE LENGTH"], [_gain_row(r) for r in reports])
    )
    click.echo(
        f"\ntrained on {len(learnt.gains)}, tested on {len(rest.gains)}; trust in more than the length: "
        f"{model.trust:.2f}. Random is 0.5; intervals are 95 %."
    )


def configured_examples(settings: Settings) -> list[Pair]:
    """Returns the examples of the configured routes, and those of no route."""
    found: list[Pair] = [(text, name) for name, route in settings.routes.items() for text in route.examples]
    return found + [(text, None) for text in settings.routing.abstain.examples]


def configured_routes(settings: Settings) -> Configured:
    """Returns what the configuration says of its routes beyond their examples."""
    from mqrouter.routing.measured import Configured
    from mqrouter.routing.strategy import Rule
    from mqrouter.wiring import head_path, strategy_options

    options = strategy_options(settings, None)
    return Configured(
        {name: tuple(route.to) for name, route in settings.routes.items()},
        {name: Rule(tuple(route.words), tuple(route.patterns)) for name, route in settings.routes.items()},
        replace(options, first="learned") if os.access(head_path(settings), os.R_OK) else options,
    )


def labelled(
    pairs: list[Pair],
    vectors: Any,
    routes: tuple[str, ...],
    also: Mapping[int, Sequence[str]] = MappingProxyType({}),
    *,
    source: object = "the examples",
) -> Labelled:
    """Returns examples as training takes them. Raises FileError, naming `source`, for a label that is no route."""
    import numpy as np

    from mqrouter.routing.training import NONE, Labelled

    index = {name: number for number, name in enumerate(routes)}
    for number, (text, label) in enumerate(pairs):
        for name in (label, *also.get(number, ())):
            if name is not None and name not in index:
                raise FileError(f'{source}: "{name}", of "{text[:60]}", is not one of the routes: {", ".join(routes)}')
    labels = [NONE if label is None else index[label] for _, label in pairs]
    others = {number: frozenset(index[name] for name in names) for number, names in also.items()}
    return Labelled(tuple(text for text, _ in pairs), vectors, np.array(labels, dtype=np.intp), routes, others)


@dataclass(frozen=True, slots=True)
class Measure:
    file: Path
    strategies: tuple[str, ...]
    seed: int
    target_precision: float
    configured: Configured | None = None


def _report_intents(
    measure: Measure,
    settings: Settings,
    examples: list[Pair],
    asked: list[Pair],
    is_json: bool,
    also: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> None:
    from mqrouter.routing.evaluation import NOTHING_CONFIGURED, evaluate_intents

    seed, target_precision = measure.seed, measure.target_precision
    routes = tuple(sorted({label for _, label in examples if label is not None}))
    vectors = embed(settings, [text for text, _ in examples + asked]).vectors
    data = labelled(examples, vectors[: len(examples)], routes, source=measure.file)
    test = labelled(asked, vectors[len(examples) :], routes, also, source=measure.file)
    reports = []
    for name in measure.strategies:
        with progress_bar(name) as progress:
            reports.append(
                evaluate_intents(
                    name,
                    data,
                    test,
                    seed=seed,
                    target_precision=target_precision,
                    clock=time.perf_counter,
                    progress=progress,
                    configured=measure.configured or NOTHING_CONFIGURED,
                )
            )
    if is_json:
        about = {"routes": len(routes), "examples": len(examples), "questions": len(asked), "seed": seed}
        echo_json(about | {"target_precision": target_precision, "strategies": [asdict(r) for r in reports]})
        return
    click.echo(format_table(_INTENT_HEADERS, [_intent_row(report) for report in reports]))
    click.echo(
        f"\n{len(routes)} routes, {len(examples)} examples, {len(asked)} questions. PRECISION is that of the "
        f"COVERAGE kept for a target of {target_precision:g}; ROUTED also passed for in scope, and its PRECISION "
        "counts questions of no route as wrong."
    )


_INTENT_HEADERS = [
    "STRATEGY", "ACCURACY", "MACRO F1", "AUROC", "OOS RECALL", "ECE", "COVERAGE", "PRECISION", "ROUTED", "PRECISION",
    "OOS ABSTAINED", "MS", "TRAINED S",
]  # fmt: skip


def _intent_row(report: IntentReport) -> list[str | None]:
    figures = (
        report.accuracy,
        report.macro_f1,
        report.auroc,
        report.out_of_scope_recall,
        report.calibration_error,
        report.coverage,
        report.precision,
        report.taken,
        report.taken_precision,
        report.out_of_scope_abstained,
    )
    cells = [None if figure is None else f"{figure:.4f}" for figure in figures]
    return [report.strategy, *cells, f"{report.decision_ms:.3f}", f"{report.training_s:.1f}"]


def _gain_row(report: GainReport) -> list[str]:
    figures = (report.apgr, report.cpt_50, report.cpt_80, report.above_length)
    return [report.strategy, *map(_interval, figures)]


def _interval(interval: Interval) -> str:
    return f"{format_figure(interval.value)} ({format_figure(interval.low)} to {format_figure(interval.high)})"


def _wordings(questions: list[str], seed: int) -> dict[str, list[str]]:
    """Returns the questions as asked, and under every change."""
    import numpy as np

    from mqrouter.routing.perturb import CHANGES

    rng = np.random.default_rng(seed)
    changed = {name: [change(text, rng) for text in questions] for name, change in CHANGES.items()}
    return {AS_ASKED: questions} | changed


def _applicable(strategies: tuple[str, ...], configured: Configured | None) -> tuple[str, ...]:
    """Returns the strategies to measure. Raises BadParameter for one that does not exist, or cannot be measured."""
    from mqrouter.routing.measured import measured_by_default, why_not_measured
    from mqrouter.routing.registry import strategy_names

    if unknown := set(strategies) - strategy_names():
        raise click.BadParameter(f"no strategy is called {', '.join(sorted(unknown))}", param_hint="--strategy")
    for name in strategies:
        if (why := why_not_measured(name, configured)) is not None:
            raise click.BadParameter(f"{name} cannot be measured here: {why}", param_hint="--strategy")
    return strategies or measured_by_default(configured)


def _drawn(pairs: list[Pair], per_route: int | None, seed: int) -> list[Pair]:
    """Returns `per_route` examples of every label, drawn by seed; all without it."""
    if per_route is None:
        return list(pairs)
    import numpy as np

    by_label: defaultdict[str | None, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_label[pair[1]].append(pair)
    rng = np.random.default_rng(seed)
    return [by_label[label][i] for label in sorted(by_label, key=str) for i in _some(rng, by_label[label], per_route)]


def _some(rng: Any, pairs: list[Pair], count: int) -> list[int]:
    chosen: list[int] = rng.permutation(len(pairs))[:count].tolist()
    return chosen


def _halves(
    file: Path, config: Path | None, prompts: list[str], gains: list[float], fraction: float, seed: int
) -> tuple[Outcomes, Outcomes]:
    import numpy as np

    from mqrouter.routing.evaluation import Outcomes
    from mqrouter.routing.gain import forms_of

    vectors = embed(settings_or_starter(config), prompts).vectors
    forms, chars, gain = forms_of(prompts), np.array([float(len(prompt)) for prompt in prompts]), np.array(gains)
    order = np.random.default_rng(seed).permutation(len(prompts))
    cut = round(fraction * len(prompts))
    parts = [Outcomes(vectors[rows], forms[rows], chars[rows], gain[rows]) for rows in (order[:cut], order[cut:])]
    if min(part.gains.sum() for part in parts) <= 0:
        raise FileError(
            f"{file}: the strong tier is not right more often than the weak one, in all or in the part learnt from or "
            "tested on: there is no gain to measure"
        )
    return parts[0], parts[1]
