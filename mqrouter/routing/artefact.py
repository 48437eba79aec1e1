"""The file a head travels in: arrays and JSON in one .npz, no code in it, refused for any other embedder."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mqrouter.errors import MqrouterError
from mqrouter.routing.calibration import Platt
from mqrouter.routing.gain import GainRegressor, form
from mqrouter.routing.head import Head
from mqrouter.routing.landmarks import Landmarks
from mqrouter.routing.lexical import BUCKETS, WordWeights

FORMAT = 1
GAIN_ARRAYS = ("slopes", "means", "spreads")
GAIN_NUMBERS = tuple(name for name in GainRegressor.__slots__ if name not in GAIN_ARRAYS)


class ArtefactError(MqrouterError):
    """Train anew: the file is damaged, of another version, or made for another embedder or other routes."""


@dataclass(frozen=True, slots=True)
class About:
    """Where a head comes from."""

    embedder: str
    """Fingerprint of the model and its prefix."""
    data_hash: str
    """Of the examples and their labels."""
    seed: int
    target_precision: float
    examples: int
    evaluated: str = ""
    """Hash of the examples that the figures below are about, each held out of the learning."""
    accuracy: float | None = None
    auroc: float | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    about: About
    head: Head
    gain: GainRegressor | None = None
    """None where no outcomes were given."""


def hash_examples(examples: Iterable[tuple[str, str]]) -> str:
    """Returns the SHA-256 of (text, label) pairs, whatever their order."""
    digest = hashlib.sha256()
    for text, label in sorted(examples):
        digest.update(json.dumps([text, label]).encode())
    return digest.hexdigest()


def dump(artefact: Artefact) -> bytes:
    """Returns the file's bytes: the same for the same head."""
    head = artefact.head
    about = artefact.about
    described = {
        "format": FORMAT,
        "about": {name: getattr(about, name) for name in About.__slots__},
        "routes": head.routes,
        "word_weight": head.word_weight,
        "gamma": head.landmarks.gamma,
        "none_weight": head.none_weight,
        "scope_threshold": head.scope_threshold,
        "thresholds": head.thresholds,
        "confidence": {name: getattr(head.confidence, name) for name in Platt.__slots__},
    }
    arrays: dict[str, npt.NDArray[Any]] = {}
    if artefact.gain is not None:
        described["gain"] = {name: getattr(artefact.gain, name) for name in GAIN_NUMBERS}
        arrays |= {f"gain_{name}": getattr(artefact.gain, name).astype(np.float32) for name in GAIN_ARRAYS}
    arrays |= {
        "described": np.frombuffer(json.dumps(described).encode(), dtype=np.uint8),
        "linear": head.linear.astype(np.float16),
        "words": head.words.quantised,
        "words_scale": head.words.scale,
        "points": head.landmarks.points.astype(np.float16),
        "landmark_weights": head.landmarks.weights,  # of large, cancelling values: float16 would spoil their sum
        "landmark_bias": head.landmarks.bias,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def load(content: bytes, *, embedder: str, routes: Sequence[str] | None = None) -> Artefact:
    """Returns the artefact, ready to score. Raises ArtefactError, saying what it was made for and what to do."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            described: dict[str, Any] = json.loads(bytes(file["described"]))
            version = described["format"]
            if version != FORMAT:
                raise ArtefactError(f"the head is of format {version}, this mqrouter reads {FORMAT}: train anew")
            about = About(**described["about"])
            head = _head(described, file)
            gain = _gain(described, file, head.linear.shape[1] - 1)
    except ArtefactError:
        raise
    except Exception as error:  # whatever a damaged file makes of zip, numpy and JSON
        raise ArtefactError(f"the file is not a head that can be read ({type(error).__name__}): train anew") from error
    if about.embedder != embedder:
        raise ArtefactError(f"the head was trained for embedder {about.embedder}, not for {embedder}: train anew")
    if routes is not None and sorted(routes) != sorted(head.routes):
        changed = ", ".join(sorted(set(routes) ^ set(head.routes)))
        raise ArtefactError(f"the head was trained for other routes (different: {changed}): train anew")
    return Artefact(about, head, gain)


def _head(described: dict[str, Any], file: Any) -> Head:
    calibration = described["confidence"]
    head = Head(
        routes=tuple(described["routes"]),
        linear=file["linear"].astype(np.float32),
        words=WordWeights(file["words"], file["words_scale"]),
        word_weight=float(described["word_weight"]),
        landmarks=Landmarks(
            file["points"].astype(np.float32), file["landmark_weights"], file["landmark_bias"], described["gamma"]
        ),
        confidence=Platt(
            tuple(calibration["slopes"]),
            calibration["bias"],
            tuple(calibration["means"]),
            tuple(calibration["spreads"]),
        ),
        none_weight=float(described["none_weight"]),
        scope_threshold=float(described["scope_threshold"]),
        thresholds=tuple(described["thresholds"]),
    )
    _check(head)
    return head


def _gain(described: dict[str, Any], file: Any, dim: int) -> GainRegressor | None:
    if "gain" not in described:
        return None
    arrays = {name: file[f"gain_{name}"] for name in GAIN_ARRAYS}
    traits = len(form(""))
    if (
        arrays["means"].shape != (traits,)
        or arrays["spreads"].shape != (traits,)
        or len(arrays["slopes"]) != dim + traits
    ):
        raise ArtefactError("the parts of the expected gain do not fit together: train anew")
    return GainRegressor(**arrays, **described["gain"])


def _check(head: Head) -> None:
    routes, dim = len(head.routes), head.linear.shape[1] - 1
    landmarks = len(head.landmarks.points)
    classes = len(head.landmarks.bias)
    fits = (
        head.linear.shape == (routes, dim + 1)
        and head.words.quantised.shape == (BUCKETS, routes)
        and head.words.scale.shape == (routes,)
        and head.landmarks.points.shape == (landmarks, dim)
        and classes in (routes, routes + 1)
        and head.landmarks.weights.shape == (classes, landmarks)
        and len(head.thresholds) == routes
    )
    if not fits:
        raise ArtefactError("the head's parts do not fit together: train anew")
