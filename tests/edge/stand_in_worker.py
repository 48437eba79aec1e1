"""Speaks the chat worker's protocol and misbehaves on request: the question says how.

Run as: stand_in_worker.py [good | bad | mute]
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from typing import Any

orders: queue.Queue[dict[str, Any]] = queue.Queue()
cancelled = 0


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def read() -> None:
    global cancelled
    for line in sys.stdin:
        order = json.loads(line)
        if "cancel" in order:
            cancelled = order["cancel"]
        else:
            orders.put(order)
    os._exit(0)


def done(number: int, reason: str, tokens: int) -> None:
    say({"id": number, "done": {"finish_reason": reason, "prompt_tokens": 7, "completion_tokens": tokens}})


def answer(number: int, question: str) -> None:
    if question == "crash":
        say({"id": number, "text": "Half"})
        os._exit(3)
    if question == "hang":
        time.sleep(600)
    if question == "error":
        say({"id": number, "error": "ValueError: too long"})
        return
    tokens = 0
    while question in ("endless", "deaf") and (question == "deaf" or cancelled < number):
        tokens += 1
        say({"id": number, "text": f"{tokens} "})
        time.sleep(0.001)
    if tokens:
        done(number, "cancelled", tokens)
        return
    for word in ("You ", "asked: ", question):
        say({"id": number, "text": word})
    done(number, "stop", 3)


def main() -> None:
    mode = sys.argv[1]
    if mode == "bad":
        sys.exit(5)
    if mode == "mute":
        time.sleep(600)
    threading.Thread(target=read, daemon=True).start()
    say({"ready": True})
    while True:
        order = orders.get()
        answer(order["id"], order["messages"][-1]["content"])


if __name__ == "__main__":
    main()
