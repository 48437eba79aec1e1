"""What the API takes and gives: fields, ranges, units."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.feedback import Verdict
from mqrouter.core.request import Kept
from mqrouter.core.states import State
from mqrouter.core.steering import Selection, Sort

MAX_PAGE = 500
MAX_IDS = 500
MAX_SEQ = 2**63 - 1
BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def _whole(value: object) -> object:
    """JSON knows one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


After = Annotated[int, Field(ge=0, le=MAX_SEQ), BeforeValidator(_whole)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_whole)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Priority = Annotated[int, Field(ge=0, le=MAX_PRIORITY), BeforeValidator(_whole)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filter(Model):
    """Requests for which all of this is true."""

    state: list[State] | None = Field(None, max_length=len(State), description="any of these; without it every state")
    route: Text | None = None
    tier: Text | None = Field(None, description="works on it, answered it, or may still be asked")
    device: Text | None = None
    priority: Priority | None = None
    older_than_s: Seconds | None = Field(None, description="seconds since it came in, at least")
    newer_than_s: Seconds | None = Field(None, description="seconds since it came in, at most")
    error: Text | None = Field(None, description="part of how it ended or failed, upper or lower case")
    text: Text | None = Field(
        None, description="part of the question as it came in, upper or lower case: needs the operator's token"
    )

    def selection(self) -> Selection:
        return Selection(
            states=tuple(self.state or ()),
            route=self.route,
            tier=self.tier,
            device=self.device,
            priority=self.priority,
            older_than_s=self.older_than_s,
            newer_than_s=self.newer_than_s,
            error=self.error,
            text=self.text,
        )


class PageQuery(Filter):
    sort: Sort = Field(
        Sort.NEWEST,
        description="priority (who is served next), expiry and attempts list what waits for a decision or a tier",
    )
    limit: Limit = 50
    after: After | None = Field(None, description="`next` of the page before")


class ExportQuery(Filter):
    """Without any of these all are meant."""


class ShowQuery(Model):
    text: bool = Field(False, description="with the question and the answer: needs the operator's token")


class ActionsQuery(Model):
    limit: Limit = 50


class OrderQuery(Model):
    """Options of the orders; each takes its own, and does without the others."""

    older_than_s: Seconds | None = Field(None, description="purge: finished so many seconds ago, at least")
    id: Text | None = Field(None, description="feedback: the request")
    verdict: Text | None = Field(None, description="feedback: good, bad or wrong_route")
    route: Text | None = Field(None, description="feedback: the right one")
    note: str | None = Field(None, max_length=4_000, description="feedback: why")


class Requests(BaseModel):
    """One page, without the texts; `waits_because` says why each waits right now."""

    requests: list[dict[str, Any]]
    next: int | None = Field(description="null at the end; a page may be empty and still have one: look on there")


class StatsAnswer(BaseModel):
    requests: dict[str, int] = Field(description="by state")
    routes: list[dict[str, Any]] = Field(description="route (null: not decided, or none), state, requests")
    waiting: list[dict[str, Any]] = Field(description="tiers (in order), requests that are pending for them")
    oldest_waiting_s: float | None


class Actions(BaseModel):
    actions: list[dict[str, Any]]


class CancelArguments(Model):
    message: Text | None = Field(None, description="told to who asked")


class MoveArguments(Model):
    tier: Text


class PriorityArguments(Model):
    priority: Priority


class TtlArguments(Model):
    ttl_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = Field(description="seconds from now")


class Bulk(Model):
    """Which requests: named, or by a filter, or really all of them; `MAX_ORDERED` of them in one call."""

    ids: list[Text] | None = Field(None, min_length=1, max_length=MAX_IDS)
    filter: Filter | None = None
    all: bool = False
    dry_run: bool = Field(False, description="say what would change, and change nothing")
    after: After | None = Field(None, description="`next` of the call before")

    @model_validator(mode="after")
    def _says_which(self) -> Bulk:
        has_filter = self.filter is not None and not self.filter.selection().is_everything
        if (self.ids is not None) + has_filter + self.all != 1:
            raise ValueError("say which requests: exactly one of ids, filter with something in it, all = true")
        return self

    def selection(self) -> Selection:
        return Selection() if self.filter is None else self.filter.selection()


class BulkRetry(Bulk):
    pass


class BulkCancel(Bulk, CancelArguments):
    pass


class BulkMove(Bulk, MoveArguments):
    pass


class BulkPriority(Bulk, PriorityArguments):
    pass


class BulkTtl(Bulk, TtlArguments):
    pass


class BulkDrop(Bulk):
    pass


class BulkUndo(Bulk):
    """Of what was dropped."""


class Ordered(BaseModel):
    """What became of one request."""

    id: str
    found: State
    is_changed: bool
    why_not: str | None


class BulkDone(BaseModel):
    dry_run: bool
    matched: int
    changed: int = Field(description="or would be, with dry_run")
    next: int | None = Field(description="call again with this as `after`; null where all are done")
    outcomes: list[Ordered]


class FeedbackBody(Model):
    """A verdict on an answer; of a request without one only the route can be judged."""

    verdict: Verdict
    route: Text | None = Field(
        None, description="with wrong_route: the right one; without it nothing is learnt from it"
    )
    note: Text | None = Field(None, description="why, for people")


class FeedbackDone(BaseModel):
    request: str
    verdict: Verdict
    route: str | None


class Held(BaseModel):
    """What the order was about."""

    tiers: list[str] = []
    routes: list[str] = []


class Imported(Model):
    """What a device published; exactly one of the payloads. `correlation` is written in hexadecimal digits."""

    topic: str = Field(min_length=1, max_length=65_535)
    payload: str | None = None
    payload_base64: Annotated[str, Field(pattern=BASE64)] | None = None
    content_type: Text | None = None
    reply_topic: str | None = Field(None, min_length=1, max_length=65_535)
    correlation: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=131_070)] | None = None
    traceparent: Text | None = Field(None, description="of the sender's trace; one that is not valid is left out")

    @model_validator(mode="after")
    def _has_one_payload(self) -> Imported:
        if (self.payload is None) == (self.payload_base64 is None):
            raise ValueError("give exactly one of payload and payload_base64")
        return self

    def kept(self) -> Kept:
        payload = base64.b64decode(self.payload_base64 or "") if self.payload is None else self.payload.encode()
        correlation = None if self.correlation is None else bytes.fromhex(self.correlation)
        return Kept(self.topic, payload, self.content_type, self.reply_topic, correlation, self.traceparent)


class ImportBody(Model):
    requests: list[Imported] = Field(min_length=1, max_length=MAX_IDS)


class ImportDone(BaseModel):
    counts: dict[str, int] = Field(description="new, absorbed, reused, refused")
