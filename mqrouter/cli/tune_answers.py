"""`mqrouter tune --answers`: how likely a local answer is a good one, learnt from verdicts on past ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, echo_json
from mqrouter.cli.daemon import open_database
from mqrouter.cli.tables import format_table

if TYPE_CHECKING:
    from mqrouter.core.feedback import JudgedAnswer
    from mqrouter.routing.answer_confidence import AnswerCalibration
    from mqrouter.settings import Settings

SHOWN_AT = (0.3, 0.5, 0.7, 0.9)


def tune_answers(settings: Settings, *, is_written: bool, is_json: bool) -> None:
    """Shows, and writes, the calibration of every local tier's model. Exit 1 where the verdicts are too few."""
    from mqrouter.core.feedback import outcomes_of
    from mqrouter.edge.store.feedback import read_answers
    from mqrouter.errors import MqrouterError
    from mqrouter.routing.answer_confidence import calibrate

    with open_database(settings.database) as db:
        outcomes = outcomes_of(read_answers(db))
    try:
        found = {model: calibrate(model, outcomes) for model in _models(settings)}
    except MqrouterError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(Exit.FAILED) from error
    rows = [_row(entry, outcomes) for entry in found.values()]
    written = _write(settings, found) if is_written else {}
    if is_json:
        echo_json({"models": rows} | written)
        return
    names = _names(settings)
    for row in rows:
        click.echo(f"{names[row['model']]}: {row['good']} good, {row['bad']} bad, AUROC {row['auroc']:.3f} on these")
        cells = [(f"{at['least']:g}", at["kept"], at["good"]) for at in row["at"]]
        click.echo(format_table(["LEAST CONFIDENCE", "KEPT", "GOOD OF THESE"], cells))
    if written:
        click.echo(f"\nwritten: {written['file']}; a reload of the daemon takes it up")


def _models(settings: Settings) -> list[str]:
    """Returns the fingerprints of the local tiers' models. Raises ModelFileError."""
    found = _names(settings)
    if not found:
        from mqrouter.errors import ModelFileError

        raise ModelFileError("no tier is local: there are no answers to calibrate")
    return sorted(found)


def _names(settings: Settings) -> dict[str, str]:
    """Returns what people call each model, with its tiers, by its fingerprint. Raises ModelFileError."""
    from mqrouter import wiring
    from mqrouter.settings import LocalTier

    tiers: dict[str, list[str]] = {}
    models: dict[str, str] = {}
    for name, tier in settings.tiers.items():
        if isinstance(tier, LocalTier):
            fingerprint = wiring.chat_fingerprint(settings, tier)
            tiers.setdefault(fingerprint, []).append(name)
            models[fingerprint] = tier.model
    return {fingerprint: f"{models[fingerprint]} (tier {', '.join(names)})" for fingerprint, names in tiers.items()}


def _row(entry: AnswerCalibration, outcomes: list[JudgedAnswer]) -> dict[str, Any]:
    from mqrouter.routing.answer_confidence import confidence_of

    mine = [outcome for outcome in outcomes if outcome.model == entry.model]
    confident = [(confidence_of(outcome.evidence, entry), outcome.is_good) for outcome in mine]
    at = []
    for least in SHOWN_AT:
        kept = [is_good for confidence, is_good in confident if confidence >= least]
        at.append({"least": least, "kept": len(kept), "good": sum(kept)})
    return asdict(entry) | {"at": at}


def _write(settings: Settings, found: dict[str, AnswerCalibration]) -> dict[str, Any]:
    """Returns what was written; calibrations of other models stay in the file."""
    from mqrouter import wiring
    from mqrouter.models.files import write_json
    from mqrouter.routing import answer_confidence
    from mqrouter.routing.artefact import ArtefactError

    path = wiring.calibrations_path(settings)
    try:
        others = dict(wiring.read_calibrations(settings))
    except ArtefactError:
        others = {}  # nothing can be made of what was there
    try:
        write_json(path, answer_confidence.dump(others | found))
    except OSError as error:
        click.echo(f"mqrouter: {path} cannot be written: {error}", err=True)
        raise SystemExit(Exit.FAILED) from error
    return {"file": str(path)}
