"""The process that holds the local chat model: JSON lines in on standard input, JSON lines out on standard output.

In:  {"id": 1, "messages": [...], "max_tokens": 192, "temperature": 0.2}   or   {"cancel": 1}
Out: {"ready": true}; then per request {"id": 1, "text": "..."}, and at its end {"id": 1, "done": {...}} or
     {"id": 1, "error": "..."}
The end of standard input ends the process, so it never outlives the daemon, however that dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Any

NICENESS = 10  # the router answers brokers and decides; a generation can wait a moment
OOM_SCORE = 500  # of 1000: where the kernel has to end something, it is the model and not the router


class Worker:
    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled = 0

    def read(self, lines: IO[str]) -> None:
        """Takes orders until the daemon is gone."""
        for line in lines:
            order = json.loads(line)
            if "cancel" in order:
                self._cancelled = max(self._cancelled, order["cancel"])
            else:
                self._requests.put(order)
        os._exit(0)  # a generation under way must not keep the process

    def serve(self, model: Any) -> None:
        from mqrouter.models.logprobs import Logprobs

        logprobs = Logprobs(model)
        self._say({"ready": True})
        while True:
            request = self._requests.get()
            try:
                self._generate(model, request, logprobs)
            except Exception as error:  # the daemon decides what a failed generation means
                self._say({"id": request["id"], "error": type(error).__name__})  # its words may quote the question

    def _generate(self, model: Any, request: dict[str, Any], logprobs: Any) -> None:
        number, tokens, finish_reason = request["id"], 0, "stop"
        logprobs.clear()
        chunks = model.create_chat_completion(
            messages=request["messages"],
            max_tokens=request["max_tokens"],
            temperature=request["temperature"],
            stream=True,
        )
        for chunk in chunks:
            if self._cancelled >= number:
                finish_reason = "cancelled"
                break
            choice = chunk["choices"][0]
            finish_reason = choice["finish_reason"] or finish_reason
            text = choice["delta"].get("content")
            if text:
                tokens += 1
                self._say({"id": number, "text": text})
        done = {"finish_reason": finish_reason, "prompt_tokens": model.n_tokens - tokens, "completion_tokens": tokens}
        self._say({"id": number, "done": done | logprobs.summary()})

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def _ready_to_be_ended() -> None:
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        score.write_text(str(max(OOM_SCORE, int(score.read_text(encoding="ascii")))), encoding="ascii")


def main() -> None:
    """Run by the daemon: python -m mqrouter.edge.chat_worker MODEL_FILE CONTEXT_TOKENS THREADS PROFILE."""
    path, context_tokens, threads, profile = sys.argv[1:]
    # llama.cpp may write to standard output; that stream is ours.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(NICENESS)
    _ready_to_be_ended()
    worker = Worker(out)
    threading.Thread(target=worker.read, args=(sys.stdin,), name="orders", daemon=True).start()
    from mqrouter.models.loading import LoadProfile, load_chat

    worker.serve(
        load_chat(Path(path), context_tokens=int(context_tokens), threads=int(threads), profile=LoadProfile(profile))
    )


if __name__ == "__main__":
    main()
