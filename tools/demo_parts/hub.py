"""The demo's second model server: llama-cpp-python's own, OpenAI-compatible, as it is.

python tools/demo_parts/hub.py PORT MODELS_DIR; says "ready" on standard output once it answers. Only the way in is
ours: `python -m llama_cpp.server` has no option for loading a model the way it survives on this machine.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as library
import uvicorn
from llama_cpp.server.app import create_app
from llama_cpp.server.settings import ModelSettings, ServerSettings

from mqrouter.models.catalogue import SMOLLM2, Purpose
from mqrouter.models.loading import LoadProfile
from mqrouter.models.store import resolve
from mqrouter.models.survival import MEMORY_FILE, find_profile
from mqrouter.settings import default_threads

CONTEXT_TOKENS = 2048


class AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The server answers, and has said so."""
        await super().startup(sockets)
        print("ready", flush=True)


def avoid_extra_buffers() -> None:
    """Models are loaded without repacked weights, the only ones that the AMX kernels work on."""
    original = library.llama_model_default_params

    def without_extra_buffers() -> Any:
        parameters = original()
        parameters.use_extra_bufts = False
        return parameters

    library.llama_model_default_params = without_extra_buffers


def serve(port: int, models_dir: Path) -> None:
    model = resolve(SMOLLM2.name, models_dir)
    profile = find_profile(model.path, Purpose.CHAT, models_dir / MEMORY_FILE).profile
    if profile is not LoadProfile.DEFAULT:
        avoid_extra_buffers()
    threads = default_threads()
    app = create_app(
        server_settings=ServerSettings(host="127.0.0.1", port=port),
        model_settings=[
            ModelSettings(
                model=str(model.path),
                model_alias=SMOLLM2.name,
                n_ctx=CONTEXT_TOKENS,
                n_threads=threads,
                n_threads_batch=threads,
                use_mmap=profile is not LoadProfile.NO_EXTRA_BUFTS_NO_MMAP,
                use_mlock=False,
                verbose=False,
            )
        ],
    )
    AnnouncingServer(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")).run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
