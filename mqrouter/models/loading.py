"""The one place that builds a `llama_cpp.Llama`: within its limits, quiet, as safe as this machine needs it.

`llama_cpp` is imported on first use, and its defaults are changed only while a model is being built.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqrouter.errors import ModelFileError
from mqrouter.models import catalogue
from mqrouter.models.header import read_header

if TYPE_CHECKING:
    from llama_cpp import Llama

UNCATALOGUED_MAX_TOKENS = 512
CHAT_BATCH_TOKENS = 512

_GGML_LOG_ERROR = 4
_POOLING_MEAN = 1  # llama_cpp.LLAMA_POOLING_TYPE_MEAN, before the library is imported
_building = threading.Lock()
_last_errors: deque[str] = deque(maxlen=3)
_callback: Any = None


class LoadProfile(StrEnum):
    """How much llama.cpp is asked not to do, the fastest first."""

    DEFAULT = "default"
    # No repacked weights: the AMX kernels, which crash on some virtual machines, work on nothing else.
    NO_EXTRA_BUFTS = "no-extra-bufts"
    NO_EXTRA_BUFTS_NO_MMAP = "no-extra-bufts-no-mmap"


def load_embedder(path: Path, *, threads: int, profile: LoadProfile = LoadProfile.DEFAULT) -> Llama:
    """A model that embeds one text of up to `n_ctx()` tokens per call.

    With room for one sequence instead of llama-cpp-python's 256 the MiniLM process is 30 MB smaller after
    loading; the buffer of per-token outputs grows to them (120 kB a token) as longer texts come.
    Raises ModelFileError where llama.cpp cannot load the file.
    """
    header = read_header(path)
    tokens = embedder_max_tokens(path, header)
    arguments = {"embedding": True, "n_ctx": tokens, "n_batch": tokens, "n_ubatch": tokens}
    if f"{header.get('general.architecture')}.pooling_type" not in header:
        arguments["pooling_type"] = _POOLING_MEAN
    return _build(path, threads, profile, sequences=1, **arguments)


def load_chat(path: Path, *, context_tokens: int, threads: int, profile: LoadProfile = LoadProfile.DEFAULT) -> Llama:
    """A model that chats within `context_tokens`. Raises ModelFileError where llama.cpp cannot load it."""
    batch = min(CHAT_BATCH_TOKENS, context_tokens)
    return _build(path, threads, profile, sequences=None, n_ctx=context_tokens, n_batch=batch, n_ubatch=batch)


def embedder_max_tokens(path: Path, header: dict[str, Any] | None = None) -> int:
    """What a text is cut to: the catalogue's word, else the file's own, within reason."""
    if entry := catalogue.entry_for_file(path.name):
        return entry.max_tokens
    header = read_header(path) if header is None else header
    context = header.get(f"{header.get('general.architecture')}.context_length")
    return min(int(context or UNCATALOGUED_MAX_TOKENS), UNCATALOGUED_MAX_TOKENS)


def _build(path: Path, threads: int, profile: LoadProfile, *, sequences: int | None, **arguments: Any) -> Llama:
    with _building, ExitStack() as changes:
        llama_cpp = _llama_cpp()
        _last_errors.clear()
        changes.enter_context(_own_stderr(llama_cpp))
        if profile is not LoadProfile.DEFAULT:
            changes.enter_context(_without_extra_buffers(llama_cpp))
        if sequences is not None:
            changes.enter_context(_replaced(llama_cpp.llama_cpp, "llama_max_parallel_sequences", lambda: sequences))
        try:
            model: Llama = llama_cpp.Llama(
                str(path),
                n_threads=threads,
                n_threads_batch=threads,
                use_mmap=profile is not LoadProfile.NO_EXTRA_BUFTS_NO_MMAP,
                verbose=False,
                **arguments,
            )
        except (ValueError, RuntimeError) as error:
            reason = "; ".join([str(error), *_last_errors])
            raise ModelFileError(f"{path}: llama.cpp cannot load it: {reason}") from error
    return model


def _llama_cpp() -> Any:
    """The library, its chatter going to `_last_errors` instead of stderr."""
    global _callback
    import llama_cpp

    if _callback is None:
        _callback = llama_cpp.llama_log_callback(_keep_errors)
        llama_cpp.llama_log_set(_callback, None)
    return llama_cpp


def _keep_errors(level: int, text: bytes, _user_data: Any) -> None:
    if level == _GGML_LOG_ERROR:
        _last_errors.append(text.decode("utf-8", errors="replace").strip())


@contextmanager
def _without_extra_buffers(llama_cpp: Any) -> Iterator[None]:
    """`Llama` has no argument for it: the default it starts from is the only way in."""
    original = llama_cpp.llama_cpp.llama_model_default_params

    def without_extra_buffers() -> Any:
        parameters = original()
        if not hasattr(parameters, "use_extra_bufts"):
            raise RuntimeError("this llama-cpp-python has no use_extra_bufts; update it")
        parameters.use_extra_bufts = False
        return parameters

    with _replaced(llama_cpp.llama_cpp, "llama_model_default_params", without_extra_buffers):
        yield


@contextmanager
def _own_stderr(llama_cpp: Any) -> Iterator[None]:
    """Keeps llama-cpp-python from pointing the whole process's stdout and stderr at /dev/null while it loads,
    which would swallow the log lines of every other thread."""
    from llama_cpp import _internals, llama

    with ExitStack() as changes:
        for module in (_internals, llama):
            if hasattr(module, "suppress_stdout_stderr"):
                changes.enter_context(_replaced(module, "suppress_stdout_stderr", lambda **_: nullcontext()))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
