"""Loads one model and uses it once. Run by `survival` as a process of its own, because it may crash:

python -m mqrouter.models.survival_child embed default FILE
"""

from __future__ import annotations

import math
import resource
import sys
from pathlib import Path

from mqrouter.errors import ModelFileError
from mqrouter.models.catalogue import Purpose
from mqrouter.models.loading import LoadProfile, load_chat, load_embedder

# Long enough for the matrix kernels that single tokens never reach.
TEXT = "The soil moisture in the north field fell to twelve per cent: shall the valves be opened tonight? " * 2
CONTEXT_TOKENS = 512
THREADS = 2


def use(purpose: Purpose, profile: LoadProfile, path: Path) -> None:
    """Raises ModelFileError where the model does not load or its output is no number."""
    if purpose is Purpose.EMBED:
        model = load_embedder(path, threads=THREADS, profile=profile)
        values = model.embed(TEXT)
        if not all(math.isfinite(value) for value in values) or not any(values):
            raise ModelFileError(f"{path}: the embedding is not finite, or all zeros")
    else:
        model = load_chat(path, context_tokens=CONTEXT_TOKENS, threads=THREADS, profile=profile)
        model.create_completion(TEXT, max_tokens=4, temperature=0.0)


def main(arguments: list[str]) -> int:
    purpose, profile, path = arguments
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        use(Purpose(purpose), LoadProfile(profile), Path(path))
    except Exception as error:
        # The parent shows the last line.
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
