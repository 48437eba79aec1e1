from __future__ import annotations

import os
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from model_fixtures import CONTEXT, DIM, WORDS, write_gguf

from mqrouter.errors import ModelFileError
from mqrouter.models.catalogue import MINILM, SMOLLM2
from mqrouter.models.loading import LoadProfile, load_chat, load_embedder
from mqrouter.models.store import default_models_dir, resolve


@pytest.mark.parametrize("profile", LoadProfile)
def test_every_profile_embeds_alike(profile: LoadProfile, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    expected = np.array(load_embedder(path, threads=1).embed(WORDS, normalize=True))
    values = np.array(load_embedder(path, threads=1, profile=profile).embed(WORDS, normalize=True))
    assert values.shape == (DIM,)
    assert values @ expected > 0.999


@pytest.mark.parametrize(
    ("profile", "extra_buffers", "mode"),
    [
        (LoadProfile.DEFAULT, True, llama_cpp.LLAMA_LOAD_MODE_MMAP),
        (LoadProfile.NO_EXTRA_BUFTS, False, llama_cpp.LLAMA_LOAD_MODE_MMAP),
        (LoadProfile.NO_EXTRA_BUFTS_NO_MMAP, False, llama_cpp.LLAMA_LOAD_MODE_NONE),
    ],
)
def test_profile_reaches_llama_cpp(profile: LoadProfile, extra_buffers: bool, mode: object, tmp_path: Path) -> None:
    model = load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1, profile=profile)
    assert model.model_params.use_extra_bufts is extra_buffers
    assert model.model_params.load_mode == mode


def test_changed_defaults_are_put_back(tmp_path: Path) -> None:
    sequences = llama_cpp.llama_cpp.llama_max_parallel_sequences()
    load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1, profile=LoadProfile.NO_EXTRA_BUFTS)
    assert llama_cpp.llama_cpp.llama_model_default_params().use_extra_bufts is True
    assert llama_cpp.llama_cpp.llama_max_parallel_sequences() == sequences


def test_embedder_holds_one_sequence_of_the_models_length(tmp_path: Path) -> None:
    model = load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1)
    assert model.context_params.n_seq_max == 1
    assert model.n_batch == CONTEXT
    assert int(model.pooling_type()) == llama_cpp.LLAMA_POOLING_TYPE_MEAN


def test_several_texts_embed_as_one_by_one(tmp_path: Path) -> None:
    model = load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1)
    texts = [WORDS, "water", "june in june"]
    assert np.allclose(model.embed(texts), [model.embed(text) for text in texts])


def test_text_longer_than_the_model_is_cut(tmp_path: Path) -> None:
    model = load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1)
    assert len(model.embed("frosty soil " * 500)) == DIM


def test_loading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1).embed(WORDS)
    assert capfd.readouterr() == ("", "")


def test_loading_leaves_the_stderr_of_other_threads_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redirected: list[object] = []
    monkeypatch.setattr(os, "dup2", lambda *arguments: redirected.append(arguments))
    load_embedder(write_gguf(tmp_path / "tiny.gguf"), threads=1)
    assert redirected == []


def test_damaged_file_is_explained_in_llama_cpps_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-10_000])
    with pytest.raises(ModelFileError, match=r"tiny\.gguf: llama\.cpp cannot load it: .*not within the file bounds"):
        load_embedder(path, threads=1)
    assert capfd.readouterr() == ("", "")


def test_file_of_another_kind_never_reaches_llama_cpp(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"<html>")
    with pytest.raises(ModelFileError, match="begins with b'<htm'"):
        load_embedder(path, threads=1)


@pytest.mark.real_model
def test_paraphrases_are_nearer_than_strangers() -> None:
    model = load_embedder(resolve(MINILM.name, default_models_dir()).path, threads=1)
    texts = ["How do I sharpen a chainsaw?", "What is the way to sharpen chain saw teeth?", "Is it going to freeze?"]
    first, paraphrase, stranger = (np.array(model.embed(text, normalize=True)) for text in texts)
    assert first @ paraphrase > 0.8
    assert first @ stranger < 0.2


@pytest.mark.real_model
def test_default_embedder_agrees_with_its_model_card() -> None:
    # https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2: the values its example prints.
    model = load_embedder(resolve(MINILM.name, default_models_dir()).path, threads=1)
    values = model.embed("This is an example sentence", normalize=True)
    assert values[:3] == pytest.approx([0.0677, 0.0635, 0.0487], abs=0.005)


@pytest.mark.real_model
def test_default_chat_model_says_something() -> None:
    model = load_chat(resolve(SMOLLM2.name, default_models_dir()).path, context_tokens=256, threads=1)
    reply = model.create_chat_completion([{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0.0)
    assert isinstance(reply, dict)
    assert reply["choices"][0]["message"]["content"]
