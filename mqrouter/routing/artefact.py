"""The file a head travels in: arrays and JSON in one .npz, no code in it, refused for any other embedder."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
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
KINDS_OF_EVIDENCE = 2  # what `Head.confidence` takes
KEYS = frozenset(
    {"format", "about", "routes", "word_weight", "gamma", "none_weight", "scope_threshold", "thresholds", "confidence"}
)
ARRAYS = frozenset({"described", "linear", "words", "words_scale", "points", "landmark_weights", "landmark_bias"})


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
            if described["format"] != FORMAT:
                raise ArtefactError(f"the head is of format {described['format']}, not of {FORMAT}: train anew")
            _check_version(described, frozenset(file.files))
            about = About(**described["about"])
            _check_about(about)
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


def _check_version(described: dict[str, Any], arrays: frozenset[str]) -> None:
    """Raises ArtefactError where anything is missing, or is there that this version does not know."""
    with_gain = "gain" in described
    there = [*_paths(described), *arrays]
    wanted = [
        *(KEYS | ({"gain"} if with_gain else set())),
        *(f"about.{name}" for name in About.__slots__),
        *(f"confidence.{name}" for name in Platt.__slots__),
        *(f"gain.{name}" for name in GAIN_NUMBERS if with_gain),
        *ARRAYS,
        *(f"gain_{name}" for name in GAIN_ARRAYS if with_gain),
    ]
    if differing := sorted(set(there) ^ set(wanted)):
        named = ", ".join(differing[:3])
        raise ArtefactError(f"the head was written by another version of mqrouter (it differs in {named}): train anew")


def _paths(described: dict[str, Any]) -> Iterator[str]:
    for key, value in described.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{name}" for name in value)


def _check_about(about: About) -> None:
    texts = (about.embedder, about.data_hash, about.evaluated)
    whole = (about.seed, about.examples)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in whole):
        raise ArtefactError("what the head says about itself cannot be read: train anew")
    _numbers([about.target_precision, *(figure for figure in (about.accuracy, about.auroc) if figure is not None)])


def _numbers(values: Any) -> tuple[float, ...]:
    """Returns the values as finite numbers. Raises ArtefactError."""
    if not isinstance(values, list) or not all(
        type(value) in (int, float) and math.isfinite(value) for value in values
    ):
        raise ArtefactError("the head has a figure that is no finite number: train anew")
    return tuple(map(float, values))


def _number(value: Any) -> float:
    return _numbers([value])[0]


def _array(file: Any, name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Returns an array of finite values, floats as float32. Raises ArtefactError."""
    found: npt.NDArray[Any] = file[name]
    if found.dtype != dtype or not np.isfinite(found).all():
        raise ArtefactError(f"the head's part {name} is not of finite {dtype.__name__} values: train anew")
    return found.astype(np.float32) if found.dtype.kind == "f" else found


def _head(described: dict[str, Any], file: Any) -> Head:
    calibration = described["confidence"]
    head = Head(
        routes=tuple(described["routes"]),
        linear=_array(file, "linear", np.float16),
        words=WordWeights(_array(file, "words", np.int8), _array(file, "words_scale", np.float32)),
        word_weight=_number(described["word_weight"]),
        landmarks=Landmarks(
            _array(file, "points", np.float16),
            _array(file, "landmark_weights", np.float32),
            _array(file, "landmark_bias", np.float32),
            _number(described["gamma"]),
        ),
        confidence=Platt(
            _numbers(calibration["slopes"]),
            _number(calibration["bias"]),
            _numbers(calibration["means"]),
            _numbers(calibration["spreads"]),
        ),
        none_weight=_number(described["none_weight"]),
        scope_threshold=_number(described["scope_threshold"]),
        thresholds=_numbers(described["thresholds"]),
    )
    _check(head)
    return head


def _gain(described: dict[str, Any], file: Any, dim: int) -> GainRegressor | None:
    if "gain" not in described:
        return None
    arrays: dict[str, Any] = {name: _array(file, f"gain_{name}", np.float32) for name in GAIN_ARRAYS}
    numbers: dict[str, Any] = {name: _number(described["gain"][name]) for name in GAIN_NUMBERS}
    traits = len(form(""))
    fits = (
        arrays["means"].shape == arrays["spreads"].shape == (traits,)
        and arrays["slopes"].shape == (dim + traits,)
        and bool((arrays["spreads"] > 0).all())
    )
    if not fits:
        raise ArtefactError("the parts of the expected gain do not fit together: train anew")
    return GainRegressor(**arrays, **numbers)


def _check(head: Head) -> None:
    routes, dim = len(head.routes), head.linear.shape[1] - 1
    landmarks = len(head.landmarks.points)
    classes = len(head.landmarks.bias)
    platt = head.confidence
    fits = (
        routes >= 2
        and all(isinstance(route, str) for route in head.routes)
        and head.linear.shape == (routes, dim + 1)
        and head.words.quantised.shape == (BUCKETS, routes)
        and head.words.scale.shape == (routes,)
        and landmarks > 0
        and head.landmarks.points.shape == (landmarks, dim)
        and classes in (routes, routes + 1)
        and head.landmarks.bias.shape == (classes,)
        and head.landmarks.weights.shape == (classes, landmarks)
        and len(head.thresholds) == routes
        and len(platt.slopes) == len(platt.means) == len(platt.spreads) == KINDS_OF_EVIDENCE
        and min(platt.spreads) > 0
    )
    if not fits:
        raise ArtefactError("the head's parts do not fit together: train anew")
