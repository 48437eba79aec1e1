from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from model_fixtures import PIECES, WORDS, write_weights
from safetensors.numpy import load_file, save_file

from mqrouter.errors import ModelFileError
from mqrouter.models.convert import Quantisation, convert_bert, gguf_name, gguf_piece
from mqrouter.models.header import is_embedder, read_header
from mqrouter.models.loading import load_embedder


def convert(folder: Path, quantisation: Quantisation = Quantisation.Q8_0, name: str = "tiny") -> Path:
    weights, vocabulary = write_weights(folder)
    target = folder / f"{name}.gguf"
    convert_bert(weights, vocabulary, target, name="tiny", quantisation=quantisation)
    return target


def embed(path: Path, text: str = WORDS) -> npt.NDArray[np.float64]:
    return np.array(load_embedder(path, threads=1).embed(text, normalize=True))


def test_same_input_gives_same_bytes(tmp_path: Path) -> None:
    assert convert(tmp_path, name="one").read_bytes() == convert(tmp_path, name="two").read_bytes()


def test_q8_0_embeds_like_f32(tmp_path: Path) -> None:
    q8_0 = embed(convert(tmp_path, Quantisation.Q8_0, "q8_0"))
    f32 = embed(convert(tmp_path, Quantisation.F32, "f32"))
    assert q8_0 @ f32 > 0.99


def test_matrices_are_quantised_and_the_rest_is_not(tmp_path: Path) -> None:
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(convert(tmp_path)).tensors}
    assert kinds["blk.1.attn_q.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert {kinds["blk.1.attn_q.bias"], kinds["position_embd.weight"], kinds["token_types.weight"]} == {"F32"}
    assert not any("pooler" in name for name in kinds)


def test_header_says_what_the_model_is(tmp_path: Path) -> None:
    header = read_header(convert(tmp_path))
    assert header["bert.block_count"] == 2
    assert header["bert.attention.head_count"] == 2
    assert header["bert.context_length"] == 64
    assert is_embedder(header)


def test_llama_cpp_finds_the_word_pieces(tmp_path: Path) -> None:
    tokens = load_embedder(convert(tmp_path), threads=1).tokenize("Frosty soil, Übersee".encode())
    assert [PIECES[token] for token in tokens] == ["[CLS]", "frost", "##y", "soil", "[UNK]", "[UNK]", "[SEP]"]


@pytest.mark.parametrize(("piece", "expected"), [("frost", "\u2581frost"), ("##y", "y"), ("[CLS]", "[CLS]")])
def test_pieces_are_marked_at_their_beginning(piece: str, expected: str) -> None:
    assert gguf_piece(piece) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert.embeddings.LayerNorm.bias", "token_embd_norm.bias"),
        ("encoder.layer.5.attention.output.dense.weight", "blk.5.attn_output.weight"),
        ("encoder.layer.0.output.dense.weight", "blk.0.ffn_down.weight"),
        ("pooler.dense.weight", None),
    ],
)
def test_tensors_get_the_names_llama_cpp_uses(name: str, expected: str | None) -> None:
    assert gguf_name(name) == expected


def test_other_architecture_is_refused(tmp_path: Path) -> None:
    weights, vocabulary = write_weights(tmp_path)
    save_file({"model.layers.0.mlp.weight": np.ones((2, 2), np.float32)}, weights)
    with pytest.raises(ModelFileError, match="not a BERT embedder"):
        convert_bert(weights, vocabulary, tmp_path / "m.gguf", name="m")


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    weights, vocabulary = write_weights(tmp_path)
    tensors = load_file(weights)
    del tensors["embeddings.position_embeddings.weight"]
    save_file(tensors, weights)
    with pytest.raises(ModelFileError, match="position_embd"):
        convert_bert(weights, vocabulary, tmp_path / "m.gguf", name="m")


def test_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    weights, vocabulary = write_weights(tmp_path)
    vocabulary.write_text("[PAD]\n[UNK]\n", encoding="utf-8")
    with pytest.raises(ModelFileError, match="2 pieces, but"):
        convert_bert(weights, vocabulary, tmp_path / "m.gguf", name="m")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    weights, vocabulary = write_weights(tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        convert_bert(weights, vocabulary, tmp_path / "m.gguf", name="m")


def test_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, vocabulary = write_weights(tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModelFileError, match=r"pip install 'mqrouter\[convert\]'"):
        convert_bert(weights, vocabulary, tmp_path / "m.gguf", name="m")
