"""Every error headrace raises, under one root.

A class docstring is the default message. Facts a caller may want to branch on
are attributes, never only words in the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


class HeadraceError(Exception):
    """headrace could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


# --- definitions: found at import or by `headrace check` -------------------------------


class DefinitionError(HeadraceError):
    """A service, handler, event or entity is not defined in a way headrace can run."""


class DuplicateName(DefinitionError):
    """Two definitions claim one name."""


class HandlerSignatureError(DefinitionError):
    """A handler's parameters or return annotation do not say what headrace needs to know."""


class FilterError(DefinitionError):
    """A `where=` filter says something that an event pattern cannot express."""


class NoTable(DefinitionError):
    """A handler needs a table and its service has none."""


class ConfigurationError(HeadraceError):
    """A setting is missing or has a value that cannot be used."""


# --- decoding: what arrived cannot become a typed event --------------------------------


class DecodeError(HeadraceError):
    """The body of a message cannot be decoded."""


class NotJson(DecodeError):
    """The body is not JSON."""


class NotAnEnvelope(DecodeError):
    """The body is JSON, but carries no event that headrace knows how to unwrap."""


class UnknownType(DecodeError):
    """No event or command of this name is handled here."""


class UnknownSaga(UnknownType):
    """What headrace sent to a saga of this service arrived where that saga is not known."""


class UnsupportedVersion(DecodeError):
    """The event has a version that this service cannot read."""


class SchemaMismatch(DecodeError):
    """The payload does not have the shape its type declares."""


# --- what a handler may raise to choose its own outcome --------------------------------


class PoisonMessage(HeadraceError):
    """This message can never be handled; it goes to the dead-letter queue at once."""


class RetryLater(HeadraceError):
    """This message cannot be handled yet; it is delivered again after `delay`."""

    def __init__(self, message: str | None = None, *, delay: timedelta | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class LeaseHeld(RetryLater):
    """Another delivery of this message holds its lease; it is looked at again afterwards."""


class ConditionNotMet(HeadraceError):
    """The condition of a write does not hold, so nothing was written.

    `item` is the item as it stood then, as attribute values, and `entity` what `tx.update` makes
    of it; `None` if there was none.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        item: dict[str, Any] | None = None,
        entity: Any = None,
    ) -> None:
        super().__init__(message)
        self.item = item
        self.entity = entity


class HandlerEnded(HeadraceError):
    """The handler ended in a way that would have ended more than itself."""


# --- the commit ------------------------------------------------------------------------


class CommitError(HeadraceError):
    """The effects of a handler could not be committed."""


class TooLarge(CommitError):
    """Something is larger than AWS accepts, so it was not sent."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class Conflict(CommitError):
    """Another writer changed an item between this handler's read and its commit."""


class LeaseLost(CommitError):
    """The lease ended before the handler did, and another delivery may have taken over."""


class DispatchError(CommitError):
    """The effects are committed, but some of the events they caused are not out yet."""


# --- work that no message started ------------------------------------------------------


class AlreadyDone(HeadraceError):
    """This was done before, under the same key; nothing was written.

    `answer` is what that transaction left as its answer.
    """

    def __init__(self, message: str | None = None, *, answer: Any = None) -> None:
        super().__init__(message)
        self.answer = answer


class KeyReused(HeadraceError):
    """This key was used before, for something else; nothing was written."""


# --- ports: what an adapter reports ----------------------------------------------------


class CloudError(HeadraceError):
    """A call to AWS failed."""

    retryable: bool = False

    def __init__(self, message: str | None = None, *, operation: str = "", code: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.code = code


class Throttled(CloudError):
    """AWS refused the call for now because there were too many; it had no effect."""

    retryable = True


class Unreachable(CloudError):
    """No usable answer came back; the call may or may not have had its effect."""

    retryable = True


class NotProvisioned(CloudError):
    """The queue, bus or table that was named does not exist."""


class Refused(CloudError):
    """AWS refused the call for good: it would refuse it again."""


class ConditionFailed(CloudError):
    """The item is not as the condition wants it; nothing was written."""

    def __init__(
        self,
        message: str | None = None,
        *,
        operation: str = "",
        item: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, operation=operation, code="ConditionalCheckFailedException")
        self.item = item


@dataclass(frozen=True, slots=True)
class CancellationReason:
    """Why one action of a cancelled transaction failed.

    `code` is DynamoDB's (`ConditionalCheckFailed`, `TransactionConflict`, …); `item` is the
    item that stood in the way, as attribute values, when the action asked for it.
    """

    code: str
    message: str = ""
    item: dict[str, Any] | None = None


class TransactionCanceled(CloudError):
    """DynamoDB cancelled a transaction; nothing of it was written.

    `reasons` has one entry per action, in the order of the request; `None` for an action
    that had nothing against it.
    """

    def __init__(
        self,
        reasons: Sequence[CancellationReason | None],
        message: str | None = None,
        *,
        operation: str = "TransactWriteItems",
    ) -> None:
        codes = ", ".join(reason.code if reason else "None" for reason in reasons)
        super().__init__(
            message or f"DynamoDB cancelled the transaction ({codes}); nothing was written.",
            operation=operation,
            code="TransactionCanceledException",
        )
        self.reasons = tuple(reasons)
