"""The last gate before a tier: what of a question may leave for it, as the rules stand at this moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from mqrouter.core.events import Delta, Done, TierEvent
from mqrouter.core.policy import TierFacts
from mqrouter.core.privacy import Privacy, PrivateBy
from mqrouter.core.redaction import Restorer, redact
from mqrouter.core.request import Message, Question
from mqrouter.errors import WithheldError


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves, and what puts the answer right again; None where nothing was replaced."""

    messages: tuple[Message, ...]
    restorer: Restorer | None = None


LONG_CHARS = 8_192
"""Longer texts are looked through on a thread: 64 KiB take a tenth of a second, and the event loop has none."""


async def look(privacy: Privacy, question: Question, topic: str | None, device: str | None) -> PrivateBy:
    """Returns what makes a question private by the rules of this moment."""
    if question.chars < LONG_CHARS:
        return privacy.look(question, topic, device)
    return await asyncio.to_thread(privacy.look, question, topic, device)


async def let_out(messages: tuple[Message, ...], why: PrivateBy, tier: TierFacts | None, privacy: Privacy) -> Outgoing:
    """As `what_leaves`, on a thread where that takes long."""
    if sum(len(message.content) for message in messages) < LONG_CHARS:
        return what_leaves(messages, why, tier, privacy)
    return await asyncio.to_thread(what_leaves, messages, why, tier, privacy)


def what_leaves(messages: tuple[Message, ...], why: PrivateBy, tier: TierFacts | None, privacy: Privacy) -> Outgoing:
    """Returns what `tier` may see of `messages`, which are all that it would be sent.

    `tier` is None where the configuration no longer has it. Raises WithheldError where it may see nothing.
    """
    if tier is not None and tier.is_trusted:
        return Outgoing(messages)
    why = why | PrivateBy(kinds=privacy.kinds_in(_said(messages)))
    if not why.is_private:
        return Outgoing(messages)
    if tier is None or not (tier.redacts and why.is_redactable):
        raise WithheldError(f"private, {why.reason}: the tier is not trusted")
    kinds = privacy.detect | set(why.kinds)  # also what was found under rules that have changed since
    redacted = redact([message.content for message in messages], kinds, privacy.region)
    if redacted is None or not redacted.kinds.issuperset(why.kinds):
        raise WithheldError(f"private, {why.reason}: the tier is not trusted, and not all of it can be replaced")
    sealed = tuple(replace(message, content=text) for message, text in zip(messages, redacted.texts, strict=True))
    return Outgoing(sealed, Restorer(redacted.values))


def _said(messages: Sequence[Message]) -> list[str]:
    """The texts that are not the gateway's own: its prompt may well name a number to call."""
    return [message.content for message in messages if message.role != "system"]


async def restored(
    events: AsyncGenerator[TierEvent, None], restorer: Restorer | None
) -> AsyncGenerator[TierEvent, None]:
    """Yields the tier's events with what was replaced put back, as soon as it can be told."""
    async with aclosing(events):
        async for event in events:
            match event:
                case Delta(text) if restorer is not None:
                    if whole := restorer.feed(text):
                        yield Delta(whole)
                case Done() if restorer is not None:
                    if rest := restorer.close():
                        yield Delta(rest)
                    yield event
                case _:
                    yield event
