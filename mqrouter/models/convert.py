"""Writes a BERT sentence embedder, fetched as safetensors and vocab.txt, as a GGUF file for llama.cpp.

The layout follows llama.cpp's `bert` architecture: WordPiece vocabulary, mean pooling, no pooler.
The same input gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqrouter.errors import ModelFileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Tensors = dict[str, Array]

REMEDY = "pip install 'mqrouter[convert]'"
HEAD_SIZE = 32  # of every MiniLM; safetensors do not carry the number of heads
LAYER_NORM_EPSILON = 1e-12
CONTROL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_TENSORS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_LEFT_OUT = ("pooler.", "embeddings.position_ids")
# llama.cpp adds these row by row and wants them unquantised.
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")


class Quantisation(StrEnum):
    Q8_0 = "q8_0"
    F32 = "f32"


@dataclass(frozen=True, slots=True)
class BertShape:
    context: int
    dim: int
    feed_forward: int
    layers: int
    heads: int


def convert_bert(
    weights: Path,
    vocabulary: Path,
    target: Path,
    *,
    name: str,
    quantisation: Quantisation = Quantisation.Q8_0,
) -> None:
    """Writes `target` anew. Raises ModelFileError where a file is not a BERT embedder."""
    tensors = _read(weights)
    pieces = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
    shape = shape_of(tensors, weights)
    if len(tensors["token_embd.weight"]) != len(pieces):
        raise ModelFileError(
            f"{vocabulary}: {len(pieces)} pieces, but {weights} has {len(tensors['token_embd.weight'])} rows"
        )
    gguf = _library("gguf")
    writer = gguf.GGUFWriter(target, "bert")
    _add_metadata(writer, gguf, shape, name, quantisation)
    _add_vocabulary(writer, gguf, pieces, vocabulary)
    for tensor_name, tensor in sorted(tensors.items()):
        _add_tensor(writer, gguf, tensor_name, tensor, quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_installed() -> None:
    """Raises ModelFileError naming the extra where a library of the conversion is missing."""
    for name in ("gguf", "safetensors"):
        _library(name)


def gguf_name(name: str) -> str | None:
    """What llama.cpp calls a tensor; None for one it does not use."""
    name = name.removeprefix("bert.")
    if name.startswith(_LEFT_OUT):
        return None
    if name in _TENSORS:
        return _TENSORS[name]
    if match := _LAYER.fullmatch(name):
        layer, part, kind = match.groups()
        return f"blk.{layer}.{_TENSORS[part]}.{kind}"
    stem, _, kind = name.rpartition(".")
    return f"{_TENSORS[stem]}.{kind}"


def gguf_piece(piece: str) -> str:
    """WordPiece marks continuations with ##; llama.cpp marks beginnings with U+2581 instead."""
    if piece in CONTROL_PIECES:
        return piece
    return piece[2:] if piece.startswith("##") else "\u2581" + piece


def shape_of(tensors: Tensors, weights: Path) -> BertShape:
    try:
        dim = tensors["token_embd.weight"].shape[1]
        return BertShape(
            context=tensors["position_embd.weight"].shape[0],
            dim=dim,
            feed_forward=tensors["blk.0.ffn_up.weight"].shape[0],
            layers=sum(name.endswith(".attn_q.weight") for name in tensors),
            heads=dim // HEAD_SIZE,
        )
    except KeyError as error:
        raise ModelFileError(f"{weights}: not a BERT embedder, the tensor {error} is missing") from error


def _read(weights: Path) -> Tensors:
    safetensors = _library("safetensors")
    try:
        with safetensors.safe_open(weights, framework="numpy") as file:
            return dict(_named(file))
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{weights}: not a safetensors file: {error}") from error
    except KeyError as error:
        raise ModelFileError(f"{weights}: not a BERT embedder, it has a tensor {error}") from error


def _named(file: Any) -> Iterator[tuple[str, Array]]:
    for source in file.keys():  # noqa: SIM118 - not a mapping
        if target := gguf_name(source):
            yield target, file.get_tensor(source).astype("float32", copy=False)


def _add_metadata(writer: Any, gguf: Any, shape: BertShape, name: str, quantisation: Quantisation) -> None:
    file_types = {
        Quantisation.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
        Quantisation.F32: gguf.LlamaFileType.ALL_F32,
    }
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(file_types[quantisation])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(LAYER_NORM_EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    if quantisation is not Quantisation.F32:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: Any, gguf: Any, pieces: list[str], vocabulary: Path) -> None:
    missing = [piece for piece in CONTROL_PIECES if piece not in pieces]
    if missing:
        raise ModelFileError(f"{vocabulary}: not a WordPiece vocabulary, {', '.join(missing)} missing")
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_token_list([gguf_piece(piece) for piece in pieces])
    writer.add_token_types([control if piece in CONTROL_PIECES else normal for piece in pieces])
    writer.add_token_type_count(2)
    writer.add_pad_token_id(pieces.index("[PAD]"))
    writer.add_unk_token_id(pieces.index("[UNK]"))
    writer.add_bos_token_id(pieces.index("[CLS]"))
    writer.add_eos_token_id(pieces.index("[SEP]"))
    writer.add_sep_token_id(pieces.index("[SEP]"))
    writer.add_mask_token_id(pieces.index("[MASK]"))


def _add_tensor(writer: Any, gguf: Any, name: str, tensor: Array, quantisation: Quantisation) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = tensor.ndim == 2 and tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
    if quantisation is Quantisation.F32 or not blocks or name in _ALWAYS_F32:
        writer.add_tensor(name, tensor)
    else:
        writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)


def _library(name: str) -> Any:
    """An optional library, imported only when a model is converted."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ModelFileError(f"converting a model needs the package {name}: {REMEDY}") from error
