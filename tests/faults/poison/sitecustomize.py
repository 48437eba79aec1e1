"""Found by the daemon on PYTHONPATH: a question with the word in POISON kills the process that embeds it."""

from __future__ import annotations

import os
import signal
from typing import Any

import llama_cpp

_embed = llama_cpp.Llama.embed


def _embed_or_die(model: Any, input: str, **options: Any) -> Any:
    if "POISON" in os.environ and os.environ["POISON"] in input:
        os.kill(os.getpid(), signal.SIGKILL)
    return _embed(model, input, **options)


setattr(llama_cpp.Llama, "embed", _embed_or_die)  # noqa: B010  a class that is not ours
