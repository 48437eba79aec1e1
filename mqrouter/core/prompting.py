"""From a question to the messages a tier is sent."""

from __future__ import annotations

from mqrouter.core.request import Message, Question


def compose(question: Question, system_prompt: str | None, history: tuple[Message, ...] = ()) -> tuple[Message, ...]:
    """Returns the question's messages, led by the route's prompt and the requester's context as one system message.

    A system message of the requester's own replaces the route's prompt. `history` are earlier turns of the session.
    """
    messages = question.messages
    own = messages[0].content if messages[0].role == "system" else None
    parts = [own if own is not None else system_prompt, question.context and f"Context:\n{question.context}"]
    system = "\n\n".join(part.strip() for part in parts if part)
    rest = messages[1:] if own is not None else messages
    rest = (*history, *rest)
    return (Message("system", system), *rest) if system else rest
