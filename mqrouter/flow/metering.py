"""What each call at a tier used: the tier's own count, or an estimate where it says nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.lengths import estimate_tokens
from mqrouter.core.spending import Call, Tokens
from mqrouter.errors import CredentialsError, UnreachableError
from mqrouter.flow.ports import TierClient


class Metered:
    """A tier's client whose calls leave on record what they used. `call_of` finds a request's call, where one is kept.

    `used` hears of every call that was sent.
    """

    def __init__(
        self,
        client: TierClient,
        call_of: Callable[[str], Call | None],
        used: Callable[[Tokens], None] = lambda used: None,
    ) -> None:
        self._client = client
        self._call_of = call_of
        self._told = used

    async def probe(self) -> bool:
        return await self._client.probe()

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        """As the client. What broke off counts as far as it was heard, with the question if a limit cut it off."""
        record = self._call_of(call.request_id)
        asked = sum(len(message.content) for message in call.messages)
        heard, done, is_counted = 0, None, True
        has_failed = False
        try:
            async with aclosing(self._client.stream(call)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        heard += len(event.text)
                    elif isinstance(event, Done):
                        done = event
                    yield event
        except (UnreachableError, CredentialsError):
            is_counted = False  # nobody was there, or nobody listened
            raise
        except Exception:
            has_failed = True
            raise
        finally:
            if is_counted:
                used = _used(done, asked, heard, has_refused=has_failed and not heard)
                self._told(used)
                if record is not None:
                    record.used = used


def nobody(request_id: str) -> Call | None:
    """No call of this request is on record: the tier has neither limit nor price."""
    return None


def _used(done: Done | None, asked: int, heard: int, *, has_refused: bool) -> Tokens:
    """Returns the tokens of a call that was sent `asked` characters and had `heard` back."""
    if done is not None and done.prompt_tokens + done.completion_tokens > 0:
        return Tokens(done.prompt_tokens, done.completion_tokens)
    return Tokens() if has_refused else Tokens(estimate_tokens(asked), estimate_tokens(heard))
