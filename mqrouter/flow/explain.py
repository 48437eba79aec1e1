"""Where a question would go at this moment, and why: decided as any other, and nothing is kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mqrouter.core.request import Form, JsonObject, Message, Question
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.judge import Judge
from mqrouter.flow.outgoing import look
from mqrouter.flow.ports import Embedder
from mqrouter.flow.tiers import TierBoard


class Explain:
    """One at a time: the embedder's thread is there for the questions of devices."""

    def __init__(self, judge: Callable[[], Judge | None], embedder: Callable[[], Embedder], board: TierBoard) -> None:
        self._judge = judge
        self._embedder = embedder
        self._board = board
        self._turn = asyncio.Lock()

    async def explain(
        self, text: str, *, device: str | None = None, strategy: str | None = None, is_private: bool = False
    ) -> JsonObject:
        """Returns the decision as it would be stored. Raises MqrouterError where it cannot be made."""
        judge = self._judge()
        if judge is None:
            raise RequestError(ErrorCode.OVERLOADED, "the gateway is still starting: ask again in a moment")
        if self._turn.locked():
            raise RequestError(ErrorCode.OVERLOADED, "somebody else's question is being looked at: ask again")
        question = Question(text, (Message("user", text),), Form.TEXT, is_private=is_private)
        async with self._turn:
            private_by = await look(judge.privacy, question, None, device)
            judgement = await judge.judge(
                question, self._embedder(), strategy=strategy, tiers=self._board.signals(), private_by=private_by
            )
        return judgement.to_json()
