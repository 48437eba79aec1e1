"""`mqrouter tune`: what thresholds keep, and which examples hurt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import FiniteRange, config_option, echo_json, load_or_exit
from mqrouter.cli.tables import format_figure, format_table
from mqrouter.cli.train import Lesson, learn, summary, write
from mqrouter.cli.tune_answers import tune_answers

if TYPE_CHECKING:
    from mqrouter.routing.thresholds import Kept

TARGETS = (0.90, 0.95, 0.98)


@click.command("tune")
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False, metavar="[FILE]")
@click.option("--split", metavar="KEY", help="The list of FILE to learn from, where it is JSON with named splits.")
@click.option("--from-feedback", is_flag=True, help="Learn from verdicts on past answers too, as train does.")
@click.option("--target-precision", type=FiniteRange(0, 1), default=0.95, show_default=True)
@click.option("--hurting", type=click.IntRange(min=0), default=15, show_default=True, help="Examples to list.")
@click.option("--write", "is_written", is_flag=True, help="Write head.npz with these thresholds, as train does.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every draw.")
@click.option("--answers", "is_of_answers", is_flag=True, help="Calibrate local answers instead, on their verdicts.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def command(
    config: Path | None,
    file: Path | None,
    split: str | None,
    from_feedback: bool,
    target_precision: float,
    hurting: int,
    is_written: bool,
    seed: int,
    is_of_answers: bool,
    is_json: bool,
) -> None:
    """Show coverage against precision for every route, and the examples that pull questions to another route.

    Coverage and precision are of examples held out of the head, its calibration and the threshold they are judged by.
    An example hurts where it was held out and a head learnt from all the others was sure of another route: its
    label is wrong, it belongs to two routes, or its route needs more like it.

    With --answers: learn how likely an answer of this device's model is a good one, from the verdicts good and bad on
    such answers (`mqrouter feedback`); --write keeps it as answers.json in data_dir, for this very model file.

    \b
    Examples:
      mqrouter tune
      mqrouter tune --target-precision 0.98 --write
      mqrouter tune --answers --write
    """
    from mqrouter.cli.blas import one_thread
    from mqrouter.wiring import head_path

    click.get_current_context().with_resource(one_thread())
    settings = load_or_exit(config).settings
    if is_of_answers:
        tune_answers(settings, is_written=is_written, is_json=is_json)
        return
    lesson = learn(settings, file, split, seed=seed, target_precision=target_precision, from_feedback=from_feedback)
    rows, hurt = coverage(lesson, target_precision), hurting_examples(lesson, hurting)
    written = {}
    if is_written:
        path = head_path(settings)
        written = {"file": str(path), "bytes": write(lesson, path, is_kept=True)}
    if is_json:
        echo_json(summary(lesson) | {"by_route": rows, "hurting": hurt} | written)
        return
    _echo(rows, hurt, target_precision)
    if written:
        click.echo(f"\nwritten: {written['file']}")


def coverage(lesson: Lesson, target: float) -> list[dict[str, Any]]:
    """Returns every route's threshold for the target, what it keeps, and the coverage at the usual targets."""
    import numpy as np

    from mqrouter.routing.thresholds import by_route

    held_out, routes = lesson.trained.held_out, lesson.data.routes
    thresholds = np.array(lesson.trained.head.thresholds)

    def kept(wanted: float) -> tuple[Kept, ...]:
        return by_route(thresholds, held_out.chosen, held_out.is_right, held_out.kept(len(routes), wanted))

    at = {wanted: kept(wanted) for wanted in TARGETS}
    return [
        {
            "route": routes[entry.route],
            "held_out": entry.examples,
            "threshold": entry.threshold,
            "coverage": entry.coverage,
            "precision": entry.precision,
            "coverage_at": {f"{wanted:.2f}": at[wanted][entry.route].coverage for wanted in TARGETS},
        }
        for entry in kept(target)
    ]


def hurting_examples(lesson: Lesson, count: int) -> list[dict[str, Any]]:
    """Returns the held-out examples most surely taken for another route, the surest first."""
    import numpy as np

    from mqrouter.routing.training import NONE

    held_out, data = lesson.trained.held_out, lesson.data
    wrong = np.flatnonzero(~held_out.is_right)
    wrong = wrong[np.argsort(-held_out.confidence[wrong], kind="stable")][:count]
    return [
        {
            "example": data.texts[i],
            "route": None if data.labels[i] == NONE else data.routes[data.labels[i]],
            "taken_for": data.routes[held_out.chosen[i]],
            "confidence": float(held_out.confidence[i]),
        }
        for i in wrong.tolist()
    ]


def _echo(rows: list[dict[str, Any]], hurt: list[dict[str, Any]], target: float) -> None:
    click.echo(f"Held-out examples that came out as each route, with the threshold for a precision of {target:g}:\n")
    headers = ["ROUTE", "EXAMPLES", "THRESHOLD", "COVERAGE", "PRECISION", *(f"COVERAGE AT {t:.2f}" for t in TARGETS)]
    click.echo(format_table(headers, [_cells(row) for row in rows]))
    if hurt:
        click.echo("\nExamples that hurt:\n")
        cells = [(row["example"], row["route"], row["taken_for"], f"{row['confidence']:.2f}") for row in hurt]
        click.echo(format_table(["EXAMPLE", "ROUTE", "TAKEN FOR", "CONFIDENCE"], cells))


def _cells(row: dict[str, Any]) -> list[object]:
    figures = (row["threshold"], row["coverage"], row["precision"], *row["coverage_at"].values())
    return [row["route"], row["held_out"], *map(format_figure, figures)]
