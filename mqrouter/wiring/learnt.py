"""What was learnt and lies in the data folder: the head, what local answers are worth, and when to learn again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import structlog

from mqrouter.errors import ModelFileError
from mqrouter.flow.auto_tune import Schedule
from mqrouter.routing import answer_confidence
from mqrouter.routing.answer_confidence import Calibrations
from mqrouter.routing.artefact import Artefact, ArtefactError
from mqrouter.routing.artefact import load as load_artefact
from mqrouter.routing.head import Head
from mqrouter.settings import LocalTier, Settings
from mqrouter.wiring.local_models import chat_fingerprint

log = structlog.get_logger("routing")

NEEDS_HEAD = frozenset({"learned", "cascade"})


def head_path(settings: Settings) -> Path:
    """Where `mqrouter train` writes what it learnt, and the strategy learned reads it."""
    return settings.gateway.data_dir / "head.npz"


def load_learnt(settings: Settings, fingerprint: str) -> Artefact | None:
    """Returns what was trained; None where nothing was. Raises ArtefactError for what does not fit."""
    try:
        content = head_path(settings).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtefactError(f"{head_path(settings)} cannot be read: {error}") from error
    return load_artefact(content, embedder=fingerprint, routes=tuple(settings.routes))


def load_head(settings: Settings, fingerprint: str) -> Head | None:
    """Returns the trained head; None where there is none. Raises ArtefactError for one that does not fit."""
    learnt = load_learnt(settings, fingerprint)
    return None if learnt is None else learnt.head


def why_no_head(settings: Settings, strategy: str, fingerprint: str) -> str | None:
    """Returns why a strategy cannot be used for want of a trained head that fits, or None."""
    if strategy not in NEEDS_HEAD:
        return None
    try:
        head = load_head(settings, fingerprint)
    except ArtefactError as error:
        return f"{error} with `mqrouter train`"
    is_missing = head is None and strategy == "learned"
    return f"there is no {head_path(settings)} yet: run `mqrouter train`" if is_missing else None


def why_head_is_unusable(settings: Settings, fingerprint: str) -> str | None:
    """Returns what is wrong with a head that is there, needed or not; None where it fits, or there is none."""
    try:
        load_learnt(settings, fingerprint)
    except ArtefactError as error:
        return f"{head_path(settings)}: {error} with `mqrouter train`"
    return None


def calibrations_path(settings: Settings) -> Path:
    """Where `mqrouter tune --answers --write` puts what verdicts on local answers taught."""
    return settings.gateway.data_dir / "answers.json"


def read_calibrations(settings: Settings) -> Calibrations:
    """Returns the calibrations of local answers by model; none where nothing was calibrated. Raises ArtefactError."""
    path = calibrations_path(settings)
    try:
        return answer_confidence.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error


def load_calibrations(settings: Settings) -> Calibrations:
    """Returns what `read_calibrations` does; what cannot be read, or fits no local tier's model, is logged."""
    try:
        found = read_calibrations(settings)
    except ArtefactError as error:
        log.warning("routing.answer_calibration_unusable", error=str(error))
        return {}
    for name, tier in settings.tiers.items():
        if found and isinstance(tier, LocalTier):
            with suppress(ModelFileError):  # the tier itself says what is wrong with it
                if (model := chat_fingerprint(settings, tier)) not in found:
                    log.warning("routing.answers_not_calibrated", tier=name, model=model, calibrated=sorted(found))
    return found


def auto_tune(settings: Settings) -> Schedule | None:
    """Returns when to learn from feedback; None where that is off."""
    tune = settings.routing.auto_tune
    return Schedule(tune.every_s, tune.min_feedback) if tune.enabled else None
