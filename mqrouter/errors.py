"""The error tree. Each class answers one question: what should the caller do now?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable codes a requester can receive; see the README's table."""

    BAD_REQUEST = "bad_request"
    NOT_UTF8 = "not_utf8"
    TOO_LARGE = "too_large"
    UNSUPPORTED_TYPE = "unsupported_type"
    BAD_REPLY_TOPIC = "bad_reply_topic"
    CORRELATION_REUSED = "correlation_reused"
    EXPIRED = "expired"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    QUEUE_FULL = "queue_full"
    NO_ROUTE = "no_route"
    PRIVATE_UNANSWERABLE = "private_unanswerable"
    OFFLINE_REJECTED = "offline_rejected"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"
    INTERNAL = "internal"

    @property
    def is_retryable(self) -> bool:
        """True where asking again later, unchanged, can succeed."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        ErrorCode.EXPIRED,
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.QUEUE_FULL,
        ErrorCode.OFFLINE_REJECTED,
        ErrorCode.UPSTREAM_FAILED,
        ErrorCode.INTERNAL,
    }
)


class MqrouterError(Exception):
    """Base of every error raised on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration, and where."""

    key: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


class ConfigError(MqrouterError):
    """Fix the file: carries every problem found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class RequestError(MqrouterError):
    """Tell the sender: the request itself cannot be accepted."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TransientError(MqrouterError):
    """Try again, not before `retry_after_s` where the other side named a time.

    `detail` is the other side's own wording: it may quote the question, so it is kept with the row, never logged.
    """

    def __init__(self, message: str, *, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.detail = detail
        self.retry_after_s = retry_after_s


class UnreachableError(TransientError):
    """Nobody answered at all: the tier is down, and the attempt does not count."""


class WithheldError(MqrouterError):
    """Ask another tier: this one may not see the request. Nothing has left for it."""


class PermanentError(MqrouterError):
    """Give this tier up for this request: it refused and would refuse again. `detail` as in TransientError."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class CredentialsError(PermanentError):
    """Give this tier up for every request until an operator mends its key."""


class ModelError(MqrouterError):
    """Escalate: the local model crashed, hung, or produced nothing fit to send.

    `judged` is what was looked at, as JSON for the request's history. A lesser answer, or one that was not waited for,
    is still better than none.
    """

    def __init__(self, message: str, *, judged: str | None = None, is_lesser: bool = False) -> None:
        super().__init__(message)
        self.judged = judged
        self.is_lesser = is_lesser


class ModelFileError(MqrouterError):
    """Mend the model file: the message names the file, what was found and the command that repairs it."""


class StoreError(MqrouterError):
    """The write did not happen; nothing may be acknowledged on its strength."""


class StoreFullError(StoreError):
    """Make room: the disk takes no more."""


class StoreFatalError(StoreError):
    """Stop the process: the disk can no longer be trusted (I/O error on sync)."""


class StoreLockedError(StoreError):
    """Another daemon owns this database."""
