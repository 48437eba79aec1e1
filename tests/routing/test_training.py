"""A head: learnt by seed, honest about itself, carried in a file that refuses what it was not made for."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mqrouter.routing import training
from mqrouter.routing.artefact import About, Artefact, ArtefactError, dump, hash_examples, load
from mqrouter.routing.calibration import Platt
from mqrouter.routing.gain import fit_gain, forms_of
from mqrouter.routing.landmarks import centres
from mqrouter.routing.lexical import BUCKETS, buckets, fit_words
from mqrouter.routing.metrics import auroc
from mqrouter.routing.softmax import apply, fit_softmax, softmax
from mqrouter.routing.training import NONE, Labelled, folds, train


def labelled(routes: int = 6, examples: int = 20, *, none: int = 0, seed: int = 0, dim: int = 24) -> Labelled:
    rng = np.random.default_rng(7)
    middles = rng.normal(size=(routes, dim))
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(routes), examples)
    vectors = np.concatenate([middles[labels] + rng.normal(size=(len(labels), dim)), rng.normal(size=(none, dim)) * 2])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.concatenate([labels, np.full(none, NONE)])
    texts = tuple(f"word{label} number {i}" for i, label in enumerate(labels))
    return Labelled(texts, vectors.astype(np.float32), labels, tuple(f"r{i}" for i in range(routes)))


ABOUT = About("minilm:abc:", "hash", 0, 0.95, 120)


def test_same_seed_gives_the_same_file() -> None:
    files = [dump(Artefact(ABOUT, train(labelled(), seed=4).head)) for _ in range(2)]
    assert files[0] == files[1]


def test_head_finds_the_route_of_fresh_questions() -> None:
    head, fresh = train(labelled(), seed=0).head, labelled(seed=1)
    scores = [head.score(vector, text) for vector, text in zip(fresh.vectors, fresh.texts, strict=True)]
    assert np.mean([score.best == label for score, label in zip(scores, fresh.labels, strict=True)]) > 0.9
    assert all(score.probabilities.sum() <= 1 + 1e-5 for score in scores)


@pytest.mark.parametrize("confidence", [0.0, 0.05, 0.4, 0.99, 1.0])
def test_order_of_routes_does_not_depend_on_the_confidence(confidence: float) -> None:
    odds = float(np.log(confidence / (1 - confidence))) if 0 < confidence < 1 else 80 * confidence - 40
    head = replace(train(labelled(), seed=0).head, confidence=Platt((0.0, 0.0), odds, (0.0, 0.0), (1.0, 1.0)))
    for vector in labelled(seed=1).vectors[:20]:
        found = head.score(vector, "word1 word2")
        assert found.best == int((found.meaning + found.words).argmax())
        assert found.probabilities[found.best] == pytest.approx(confidence, abs=1e-6)
        assert found.probabilities.max() <= found.confidence + 1e-9
        assert found.probabilities.sum() <= 1 + 1e-5


def test_held_out_figures_are_of_examples_not_trained_on() -> None:
    data = labelled(examples=6)
    shuffled = replace(
        data, labels=np.random.default_rng(3).permutation(data.labels), texts=("same",) * len(data.texts)
    )
    held_out = train(shuffled, seed=0).held_out
    assert held_out.is_right.mean() < 0.5  # there is nothing to learn: only a leak could know


def test_confidence_held_out_is_calibrated_without_the_example() -> None:
    """Labels of chance, the same vectors: only a calibration that saw the outcomes would know when it is right."""
    data = labelled(2, 12, none=4)
    rng = np.random.default_rng(8)
    outputs = training._Outputs(
        fold=np.arange(28) % 2,
        linear=np.zeros((28, 2), dtype=np.float32),
        words=np.zeros((28, 2), dtype=np.float32),
        near=rng.normal(size=28),
        none=np.zeros(28),
    )
    labels = np.where(np.arange(28) % 2 == 0, 0, 1)  # all of fold 0 come out right, all of fold 1 wrong
    found = training._cross_fitted(outputs, labels)
    assert found.is_right.tolist() == (labels == 0).tolist()
    assert found.confidence[labels == 0].max() < 0.2 and found.confidence[labels == 1].min() > 0.8
    assert len(train(data, seed=0).held_out.kept(2, 0.9)) == 28


@pytest.mark.parametrize("none", [0, 60])
def test_scope_tells_known_from_unknown(none: int) -> None:
    head = train(labelled(none=none), seed=0).head
    fresh, other = labelled(seed=1), labelled(seed=2, none=60)
    inside = np.array([head.score(vector, "").scope.score for vector in fresh.vectors])
    outside = np.array([head.score(vector, "").scope.score for vector in other.vectors[other.labels == NONE]])
    assert auroc(inside, outside) > 0.85


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="two examples"):
        train(labelled(examples=1), seed=0)


def test_progress_is_told_up_to_the_last_step_but_one() -> None:
    told: list[tuple[int, int]] = []
    train(labelled(examples=4), seed=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 5) for i in range(5)]


def test_folds_spread_every_label() -> None:
    labels = np.repeat([0, 1, NONE], [10, 7, 23])
    fold = folds(labels, 5, np.random.default_rng(0))
    for label in (0, 1, NONE):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_file_carries_the_head() -> None:
    head = train(labelled(none=20), seed=0).head
    read = load(dump(Artefact(ABOUT, head)), embedder=ABOUT.embedder, routes=head.routes[::-1])
    assert read.about == ABOUT
    for vector in labelled(seed=1).vectors[:20]:
        there, here = head.score(vector, "word2"), read.head.score(vector, "word2")
        np.testing.assert_allclose(there.probabilities, here.probabilities, atol=0.01)
        assert there.scope.score == pytest.approx(here.scope.score, abs=0.05)


def test_file_carries_the_expected_gain() -> None:
    data = labelled()
    forms = forms_of(data.texts)
    gain = fit_gain(data.vectors, forms, (data.labels == 0).astype(float), seed=0)
    read = load(dump(Artefact(ABOUT, train(data, seed=0).head, gain)), embedder=ABOUT.embedder).gain
    assert read is not None
    np.testing.assert_allclose(read.predict(data.vectors, forms), gain.predict(data.vectors, forms), atol=1e-4)
    assert (read.trust, read.gained, read.penalty) == (gain.trust, gain.gained, gain.penalty)
    assert load(CONTENT, embedder=ABOUT.embedder).gain is None


def test_expected_gain_of_other_traits_is_refused() -> None:
    data = labelled()
    gain = fit_gain(data.vectors, forms_of(data.texts)[:, :3], (data.labels == 0).astype(float), seed=0)
    with pytest.raises(ArtefactError, match="do not fit"):
        load(dump(Artefact(ABOUT, train(data, seed=0).head, gain)), embedder=ABOUT.embedder)


def test_file_of_150_routes_is_small() -> None:
    head = train(labelled(150, 2, dim=384), seed=0).head
    assert len(dump(Artefact(ABOUT, head))) < 3_000_000


HEAD = train(labelled(), seed=0).head
GAIN = fit_gain(labelled().vectors, forms_of(labelled().texts), (labelled().labels == 0).astype(float), seed=0)
CONTENT, WITH_GAIN = dump(Artefact(ABOUT, HEAD)), dump(Artefact(ABOUT, HEAD, GAIN))


def test_good_file_survives_being_written_again() -> None:
    assert load(changed(), embedder=ABOUT.embedder).gain is not None


def test_other_embedder_is_refused_by_name() -> None:
    with pytest.raises(ArtefactError, match=r"minilm:abc:.*not for nomic"):
        load(CONTENT, embedder="nomic")


def test_other_routes_are_refused_by_name() -> None:
    with pytest.raises(ArtefactError, match="r5, weather"):
        load(CONTENT, embedder=ABOUT.embedder, routes=["r0", "r1", "r2", "r3", "r4", "weather"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", CONTENT[: len(CONTENT) // 2]])
def test_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(ArtefactError, match="train anew"):
        load(content, embedder=ABOUT.embedder)


def test_pickled_array_is_never_opened() -> None:
    file = io.BytesIO()
    np.savez(file, described=np.array([{"format": 1}], dtype=object))
    with pytest.raises(ArtefactError, match="ValueError"):
        load(file.getvalue(), embedder=ABOUT.embedder)


def test_parts_that_do_not_fit_are_refused() -> None:
    head = train(labelled(), seed=0).head
    with pytest.raises(ArtefactError, match="do not fit"):
        load(dump(Artefact(ABOUT, replace(head, thresholds=(0.5,)))), embedder=ABOUT.embedder)


def changed(described: dict[str, Any] | None = None, **arrays: np.ndarray) -> bytes:
    """The file of a good head with keys and arrays replaced; an Ellipsis takes a key away."""
    with np.load(io.BytesIO(WITH_GAIN), allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files} | arrays
    found = json.loads(bytes(parts["described"]))
    for path, value in (described or {}).items():
        *place, key = path.split(".")
        inside = found
        for name in place:
            inside = inside[name]
        inside.pop(key, None) if value is ... else inside.update({key: value})
    parts["described"] = np.frombuffer(json.dumps(found).encode(), dtype=np.uint8)
    written = io.BytesIO()
    np.savez(written, **parts)
    return written.getvalue()


@pytest.mark.parametrize("key", ["thresholds", "about.seed", "confidence.bias", "gain.trust"])
def test_missing_key_is_another_version(key: str) -> None:
    with pytest.raises(ArtefactError, match=rf"another version of mqrouter \(it differs in {key}\): train anew"):
        load(changed({key: ...}), embedder=ABOUT.embedder)


@pytest.mark.parametrize("content", [{"mood": 1}, {"about.mood": 1}, {"format": 7}])
def test_unknown_key_is_another_version(content: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match=r"(another version|of format 7).*: train anew"):
        load(changed(content), embedder=ABOUT.embedder)


@pytest.mark.parametrize(
    "content",
    [
        {"thresholds": [0.5] * 5 + [float("nan")]},
        {"thresholds": [0.5] * 5 + ["0.5"]},
        {"thresholds": 0.5},
        {"gamma": None},
        {"none_weight": float("inf")},
        {"word_weight": True},
        {"routes": [f"r{i}" for i in range(5)] + [5]},
        {"confidence.slopes": [1.0]},
        {"confidence.spreads": [1.0, 0.0]},
        {"confidence": [1]},
        {"about.examples": "120"},
        {"about.accuracy": float("nan")},
        {"gain.trust": float("nan")},
    ],
)
def test_described_nonsense_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match="train anew"):
        load(changed(content), embedder=ABOUT.embedder)


@pytest.mark.parametrize(
    "name", ["linear", "words_scale", "points", "landmark_weights", "landmark_bias", "gain_slopes", "gain_spreads"]
)
def test_array_with_a_hole_is_refused(name: str) -> None:
    with np.load(io.BytesIO(WITH_GAIN), allow_pickle=False) as file:
        array = file[name].copy()
    array.flat[0] = np.nan
    for wrong in (array, array.astype("U8"), np.zeros(0, dtype=array.dtype)):
        with pytest.raises(ArtefactError, match="train anew"):
            load(changed(None, **{name: wrong}), embedder=ABOUT.embedder)


def test_file_holds_plain_arrays_only() -> None:
    with zipfile.ZipFile(io.BytesIO(CONTENT)) as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())


def test_hash_depends_on_examples_and_not_on_their_order() -> None:
    assert hash_examples([("a", "x"), ("b", "y")]) == hash_examples([("b", "y"), ("a", "x")])
    assert hash_examples([("a", "x")]) != hash_examples([("a", "y")])


def test_softmax_regression_separates_and_is_penalised() -> None:
    inputs = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1])
    loose, tight = (fit_softmax(inputs, labels, 2, strength=strength) for strength in (100.0, 0.1))
    assert (apply(loose, inputs).argmax(axis=1) == labels).all()
    assert np.abs(tight[:, :2]).sum() < np.abs(loose[:, :2]).sum()


def test_softmax_regression_reaches_the_optimum() -> None:
    data = labelled(4, 30)
    weights = fit_softmax(data.vectors, data.labels, 4, strength=1.0, iterations=300)
    residual = softmax(apply(weights, data.vectors)) - np.eye(4)[data.labels]
    gradient = residual.T @ data.vectors + weights[:, :-1]
    assert np.abs(gradient).max() < 0.1
    assert np.abs(residual.sum(axis=0)).max() < 0.1


def test_words_of_a_route_speak_for_it() -> None:
    found = [buckets(text) for text in ("water the beans", "water more", "cow is ill", "the ill calf")]
    weights = fit_words(found, np.array([0, 0, 1, 1]), 2)
    assert weights.score(buckets("watering")).argmax() == 0
    assert weights.score(buckets("calves ill")).argmax() == 1
    assert weights.score(buckets("")).tolist() == [0, 0]


def test_cost_of_words_is_bounded_whatever_the_text() -> None:
    assert len(buckets("ab" * 100_000)) < 2_000
    assert buckets("x" * 10_000).max() < BUCKETS


def test_centres_are_unit_length_and_no_more_than_there_are_examples() -> None:
    vectors = labelled(1, 3).vectors
    found = centres(vectors, 12, np.random.default_rng(0))
    assert found.shape == vectors.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
