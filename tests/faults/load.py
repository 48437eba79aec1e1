"""Questions that keep coming, from a thread of their own, while a test does something else."""

from __future__ import annotations

import threading
from random import Random

from harness import WAIT_S
from oracle import Form, Oracle, Sent

MAX_OPEN = 60
VERSIONS = (4, 5)
FORMS: tuple[Form, Form] = ("text", "json")


class Load:
    """Use as a context manager: asks in both protocol versions and both forms, and repeats one question in ten.

    At most `MAX_OPEN` questions are without an answer at a time. An error of the thread is raised at the end.
    """

    def __init__(self, oracle: Oracle, seed: int) -> None:
        self.repeated = 0
        self._oracle = oracle
        self._random = Random(seed)
        self._is_stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the broker takes nothing more"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._is_stopping.wait(self._random.uniform(0.0, 0.02)):
                if self._oracle.open < MAX_OPEN:
                    self._ask()
        except BaseException as error:
            self._error = error

    def _ask(self) -> None:
        version = self._random.choice(VERSIONS)
        form = self._random.choice(FORMS)
        asked = self._oracle.ask(self._random.randint(1, 4), version=version, form=form)
        if self._random.random() < 0.1:
            self._repeat(self._random.choice(asked), version)

    def _repeat(self, sent: Sent, version: int) -> None:
        self._oracle.ask_again(sent, version=version)
        self.repeated += 1
