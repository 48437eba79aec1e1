"""What words say about a route: hashed words, word pairs and letter groups, weighed by naive Bayes.

The embedding sees meaning; this sees spelling, code and key=value text that no sentence model was trained on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

BUCKETS = 8192
MAX_CHARS = 600  # bounds the cost of one decision; the embedder reads about 1,000
SMOOTHING = 0.1
LETTER_GROUPS = (3, 4)
LONGEST_KEPT = 24  # characters of a word whose buckets are kept

_WORD = re.compile(r"[^\W_]+|[^\w\s]")
_DIGITS = re.compile(r"\d+")


def buckets(text: str) -> npt.NDArray[np.intp]:
    """Returns the unique buckets of a text's features: (features,), each in [0, BUCKETS), in no order."""
    words = _WORD.findall(_DIGITS.sub("0", text[:MAX_CHARS].lower()))
    found = {zlib.crc32(f"b{first} {second}".encode()) % BUCKETS for first, second in pairwise(words)}
    for word in set(words):
        found.update(_known_word(word) if len(word) <= LONGEST_KEPT else _of_word(word))
    return np.fromiter(found, dtype=np.intp, count=len(found))


def _of_word(word: str) -> tuple[int, ...]:
    padded = f"<{word}>"
    features = {f"w{word}"}
    for size in LETTER_GROUPS:
        features.update(padded[start : start + size] for start in range(max(1, len(padded) - size + 1)))
    return tuple([zlib.crc32(feature.encode()) % BUCKETS for feature in features])


_known_word = lru_cache(maxsize=4096)(_of_word)
"""Few words make up most questions, and theirs is a third of what a decision costs; some MB when full."""


@dataclass(frozen=True, slots=True)
class WordWeights:
    """Log-likelihood ratio of each bucket for each route, against all routes together."""

    quantised: npt.NDArray[np.int8]
    """(BUCKETS, routes); times `scale` it is the ratio."""
    scale: npt.NDArray[np.float32]
    """(routes,)"""

    def score(self, found: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Returns (routes,): the summed ratios over the square root of their number.

        Features of one text depend on each other; the root keeps long questions from shouting.
        """
        total = self.quantised[found].sum(axis=0, dtype=np.int32)
        scores: npt.NDArray[np.float32] = total * (self.scale / np.float32(max(1, len(found)) ** 0.5))
        return scores


def fit_words(texts: Sequence[npt.NDArray[np.intp]], labels: npt.NDArray[np.intp], routes: int) -> WordWeights:
    """Returns the weights learnt from texts given as buckets; a bucket never seen says nothing."""
    lengths = np.fromiter((len(found) for found in texts), dtype=np.intp, count=len(texts))
    cells = np.repeat(labels, lengths) * BUCKETS + np.concatenate([*texts, np.empty(0, dtype=np.intp)])
    counts = np.bincount(cells, minlength=routes * BUCKETS).reshape(routes, BUCKETS)
    everywhere = counts.sum(axis=0)
    ratios = np.log(_share(counts)) - np.log(_share(everywhere[None, :]))
    ratios[:, everywhere == 0] = 0.0
    scale = np.maximum(np.abs(ratios).max(axis=1), 1e-6) / 127
    quantised = np.rint(ratios / scale[:, None]).astype(np.int8)
    return WordWeights(np.ascontiguousarray(quantised.T), scale.astype(np.float32))


def _share(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    smoothed = counts + SMOOTHING
    shares: npt.NDArray[np.float64] = smoothed / smoothed.sum(axis=1, keepdims=True)
    return shares
