"""`mqrouter train`: from examples to the file of the strategy `learned`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, FiniteRange, config_option, echo_json, load_or_exit
from mqrouter.cli.labelled import FileError, Pair, embed, progress_bar
from mqrouter.cli.labelled_file import read_labelled, read_outcomes, read_splits, require_examples, split_of
from mqrouter.cli.retrain import (
    feedback_examples,
    head_in_use,
    is_previous,
    previous_path,
    put,
    quality,
    replace_head,
    roll_back,
    stated_quality,
)
from mqrouter.cli.tables import format_figure

if TYPE_CHECKING:
    from mqrouter.core.feedback import Examples
    from mqrouter.routing.artefact import About
    from mqrouter.routing.gain import GainRegressor
    from mqrouter.routing.training import Labelled, Trained
    from mqrouter.settings import Settings


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learnt, and from what."""

    data: Labelled
    trained: Trained
    about: About
    gain: GainRegressor | None = None
    feedback: Examples | None = None
    """What verdicts added; None where they were not asked for."""


@click.command("train")
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False, metavar="[FILE]")
@click.option("--split", metavar="KEY", help="The list of FILE to learn from, where it is JSON with named splits.")
@click.option(
    "--outcomes",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="CSV with prompt,weak_correct,strong_correct: learn when the stronger tier is worth it (routing.min_gain).",
)
@click.option("--from-feedback", is_flag=True, help="Also from verdicts on past answers (`mqrouter feedback`).")
@click.option("--if-not-worse", is_flag=True, help="Replace the head only where the held-out quality does not fall.")
@click.option("--rollback", is_flag=True, help="Take the previous head back, and keep this one in its place.")
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="Instead of head.npz in data_dir.")
@click.option("--target-precision", type=FiniteRange(0, 1), default=0.95, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed and examples make the same file.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
@click.pass_context
def command(
    context: click.Context,
    config: Path | None,
    file: Path | None,
    split: str | None,
    outcomes: Path | None,
    from_feedback: bool,
    if_not_worse: bool,
    rollback: bool,
    out: Path | None,
    target_precision: float,
    seed: int,
    is_json: bool,
) -> None:
    """Learn the routes from the configured examples and those of FILE, and write what was learnt.

    FILE has lines of {"question": …, "route": … or null}, or CSV with text,label, or JSON with named splits. Its
    routes must be configured ones. Every figure shown is of examples held out of all learning: of the head, of its
    calibration and of its thresholds.

    With --from-feedback a good answer is an example of its route, and a verdict wrong_route one of the route it names.
    No device's own verdicts make up more than a tenth of these examples (or 3, where that is more); an operator's all
    count; private questions stay out. Figures are of the configured examples alone. The head before is kept as
    head.previous.npz. A running daemon takes a head up on SIGHUP.

    \b
    Examples:
      mqrouter train
      mqrouter train more.jsonl --target-precision 0.98
      mqrouter train --from-feedback --if-not-worse
    """
    if rollback:
        _roll_back(config, is_json)
        return
    from click.core import ParameterSource

    from mqrouter.cli.blas import one_thread
    from mqrouter.wiring import head_path

    context.with_resource(one_thread())

    settings = load_or_exit(config).settings
    path = head_path(settings) if out is None else out
    is_default = context.get_parameter_source("target_precision") is ParameterSource.DEFAULT
    if if_not_worse and is_default:
        target_precision = _target_in_use(settings, target_precision)
    lesson = learn(settings, file, split, seed=seed, target_precision=target_precision, from_feedback=from_feedback)
    if if_not_worse and (why := why_kept(settings, lesson)) is not None:
        _say_kept(summary(lesson) | {"file": str(path), "replaced": False, "why": why}, is_json)
        return
    if outcomes is not None:
        lesson = replace(lesson, gain=learn_gain(settings, outcomes, seed=seed))
    size = write(lesson, path, is_kept=out is None)
    found = summary(lesson) | {"file": str(path), "bytes": size, "replaced": True}
    if is_json:
        echo_json(found)
        return
    click.echo(
        f"{path}: {size / 1000:.0f} kB, {found['routes']} routes from {found['examples']} examples\n"
        f"held out: accuracy {found['accuracy']:.3f}, calibration error {found['calibration_error']:.3f}, "
        f"coverage {found['coverage']:.3f} at precision {format_figure(found['precision'])}"
    )
    if (used := found["feedback"]) is not None:
        click.echo(f"feedback: {used['used']} examples used of {used['labelled']}")
    if (gain := found["gain"]) is not None:
        click.echo(
            f"gain of the stronger tier: held out {gain['gained']:+.3f} (error {gain['gained_error']:.3f}) APGR above "
            f"the length, which is trusted by {gain['trust']:.2f}"
        )


def learn(
    settings: Settings,
    file: Path | None,
    split: str | None,
    *,
    seed: int,
    target_precision: float,
    from_feedback: bool = False,
) -> Lesson:
    """Returns the head learnt from the configuration, a file and verdicts. Ends the process where they are no use."""
    from mqrouter.cli.eval import labelled
    from mqrouter.routing.artefact import About, hash_examples
    from mqrouter.routing.training import train

    pairs = _examples(settings, file, split)
    require_examples(pairs, "the configuration" if file is None else file)
    feedback = feedback_examples(settings, pairs) if from_feedback else None
    more: list[Pair] = [] if feedback is None else list(feedback.pairs)
    embedded = embed(settings, [text for text, _ in pairs + more])
    source = "the configuration" if file is None else file
    data = labelled(pairs, embedded.vectors[: len(pairs)], tuple(settings.routes), source=source)
    further = labelled(more, embedded.vectors[len(pairs) :], tuple(settings.routes)) if more else None
    try:
        with progress_bar("training") as progress:
            trained = train(data, further=further, seed=seed, target_precision=target_precision, progress=progress)
    except ValueError as error:
        raise FileError(str(error)) from error
    held_out = quality(data, trained)
    about = About(
        embedder=embedded.fingerprint,
        data_hash=hash_examples((text, label or "") for text, label in pairs + more),
        seed=seed,
        target_precision=target_precision,
        examples=len(pairs) + len(more),
        evaluated=hash_examples((text, label or "") for text, label in pairs),
        accuracy=held_out.accuracy,
        auroc=held_out.auroc,
    )
    return Lesson(data, trained, about, feedback=feedback)


def why_kept(settings: Settings, lesson: Lesson) -> str | None:
    """Returns why the head in use is to stay, or None.

    The bar is what the same examples, held out in the same folds, say without the verdicts, and what the head in use
    said of itself where it was of the same examples.
    """
    from mqrouter.routing.training import train
    from mqrouter.wiring import head_path

    about = lesson.about
    in_use = head_in_use(settings, about.embedder)
    if in_use is not None and in_use.about.data_hash == about.data_hash:
        return "nothing new to learn from"
    if is_previous(settings, about.data_hash):
        return f"{previous_path(head_path(settings))} was learnt from these examples: --rollback takes it back"
    before = quality(lesson.data, train(lesson.data, seed=about.seed, target_precision=about.target_precision))
    stated = None if in_use is None else stated_quality(in_use.about, about.evaluated)
    bar = before if stated is None else before.best_of(stated)
    reached = quality(lesson.data, lesson.trained)
    return f"held-out quality would fall from {bar} to {reached}" if reached.is_below(bar) else None


def _target_in_use(settings: Settings, otherwise: float) -> float:
    from mqrouter.errors import MqrouterError
    from mqrouter.wiring import embedder_fingerprint

    try:
        in_use = head_in_use(settings, embedder_fingerprint(settings))
    except MqrouterError:
        return otherwise
    return otherwise if in_use is None else in_use.about.target_precision


def _roll_back(config: Path | None, is_json: bool) -> None:
    path = roll_back(load_or_exit(config).settings)
    if is_json:
        echo_json({"file": str(path), "rolled_back": True})
        return
    click.echo(f"{path} is the previous head again, and the other one is {previous_path(path)}")
    click.echo("a running daemon takes it up on SIGHUP")


def _say_kept(found: dict[str, Any], is_json: bool) -> None:
    if is_json:
        echo_json(found)
        return
    click.echo(f"{found['file']} stays as it is: {found['why']}")


def learn_gain(settings: Settings, file: Path, *, seed: int) -> GainRegressor:
    """Returns what the outcomes say of the stronger tier's gain. Ends the process where the file is of no use."""
    import numpy as np

    from mqrouter.routing.gain import fit_gain, forms_of

    prompts, gains = read_outcomes(file)
    return fit_gain(embed(settings, prompts).vectors, forms_of(prompts), np.array(gains), seed=seed)


def write(lesson: Lesson, path: Path, *, is_kept: bool = False) -> int:
    """Returns the bytes written: the file is replaced as a whole, or not at all; `is_kept` keeps what was there."""
    from mqrouter.routing.artefact import Artefact, dump

    gain = _gain_at(path, lesson.about.embedder) if lesson.gain is None else lesson.gain
    content = dump(Artefact(lesson.about, lesson.trained.head, gain))
    try:
        (replace_head if is_kept else put)(path, content)
    except OSError as error:
        click.echo(f"mqrouter: {path} cannot be written: {error}", err=True)
        raise SystemExit(Exit.FAILED) from error
    return len(content)


def _gain_at(path: Path, embedder: str) -> GainRegressor | None:
    """Returns what was learnt from outcomes before: learning the routes anew does not make it wrong."""
    from mqrouter.routing.artefact import ArtefactError, load

    try:
        return load(path.read_bytes(), embedder=embedder).gain
    except (OSError, ArtefactError):
        return None


def summary(lesson: Lesson) -> dict[str, Any]:
    """Returns what cross-validation says; coverage and precision of the examples above thresholds set without them."""
    from mqrouter.routing.metrics import calibration_error
    from mqrouter.routing.training import NONE

    held_out, inside = lesson.trained.held_out, lesson.data.labels != NONE
    kept = inside & held_out.kept(len(lesson.data.routes), lesson.about.target_precision)
    return {
        "routes": len(lesson.data.routes),
        "examples": lesson.about.examples,
        "seed": lesson.about.seed,
        "target_precision": lesson.about.target_precision,
        "feedback": None
        if lesson.feedback is None
        else {"used": len(lesson.feedback.pairs), "labelled": lesson.feedback.labelled},
        "accuracy": float(held_out.is_right[inside].mean()),
        "auroc": lesson.about.auroc,
        "calibration_error": calibration_error(held_out.confidence, held_out.is_right),
        "coverage": float(kept.sum() / inside.sum()),
        "precision": float(held_out.is_right[kept].mean()) if kept.any() else None,
        "gain": None
        if lesson.gain is None
        else {name: getattr(lesson.gain, name) for name in ("trust", "gained", "gained_error", "penalty")},
    }


def _examples(settings: Settings, file: Path | None, split: str | None) -> list[Pair]:
    """Returns every question once, with its first label: the configuration's goes before the file's."""
    pairs: list[Pair] = [(text, name) for name, route in settings.routes.items() for text in route.examples]
    pairs += [(text, None) for text in settings.routing.abstain.examples]
    if file is not None:
        pairs += split_of(read_splits(file), split, "--split") if split else read_labelled(file)
    return list(dict(reversed(pairs)).items())[::-1]
