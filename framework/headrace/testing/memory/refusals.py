"""What SQS and EventBridge say to an entry or a batch they do not take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from headrace.errors import Refused
from headrace.limits import (
    SQS_ATTRIBUTES,
    SQS_BATCH_ENTRIES,
    SQS_MAX_DELAY,
    SQS_MESSAGE_BYTES,
)
from headrace.ports import Attribute, EntryFailure, QueueEntry

NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that SQS does not carry: all that XML 1.0 leaves out."""


def require_batch(operation: str, count: int) -> None:
    """Raises `Refused` unless SQS takes a batch of so many entries."""
    if count == 0:
        raise Refused(
            "A batch needs at least one entry.", operation=operation, code="EmptyBatchRequest"
        )
    if count > SQS_BATCH_ENTRIES:
        raise Refused(
            f"A batch holds at most {SQS_BATCH_ENTRIES} entries, not {count}.",
            operation=operation,
            code="TooManyEntriesInBatchRequest",
        )


def require_batch_size(entries: Sequence[QueueEntry]) -> None:
    """Raises `Refused` when the messages are together larger than one may be."""
    size = sum(map(message_bytes, entries))
    if size > SQS_MESSAGE_BYTES:
        raise Refused(
            f"The batch has {size} bytes; SQS takes {SQS_MESSAGE_BYTES}.",
            operation="SendMessageBatch",
            code="BatchRequestTooLong",
        )


def require_groups(entries: Sequence[QueueEntry]) -> None:
    """Raises `Refused` when one message for a FIFO queue has no group: AWS takes none of them."""
    if any(entry.group_id is None for entry in entries):
        raise Refused(
            "Each message for a FIFO queue needs a group_id.",
            operation="SendMessageBatch",
            code="MissingParameter",
        )


def message_bytes(entry: QueueEntry) -> int:
    """Body and user attributes (name, type and value); the trace header is free."""
    attributes = sum(
        len(name.encode()) + len(attribute.type.encode()) + _content_bytes(attribute.value)
        for name, attribute in entry.attributes.items()
    )
    return _content_bytes(entry.body) + attributes


def _content_bytes(value: str | bytes) -> int:
    # A lone surrogate has no UTF-8; the entry is refused for it, so its size is moot.
    return len(value.encode(errors="surrogatepass")) if isinstance(value, str) else len(value)


def entry_failure(index: int, entry: QueueEntry, *, fifo: bool) -> EntryFailure | None:
    """Why SQS would not take this entry, if so."""
    reason = _content_refusal(entry) or (_fifo_refusal(entry) if fifo else _delay_refusal(entry))
    return EntryFailure(index, *reason, retryable=False) if reason else None


def _content_refusal(entry: QueueEntry) -> tuple[str, str] | None:
    texts = [a.value for a in entry.attributes.values() if isinstance(a.value, str)]
    if not entry.body:
        return "MissingParameter", "The message body is empty."
    if any(NOT_XML.search(text) for text in [entry.body, *texts]):
        return "InvalidMessageContents", "The message has characters outside the allowed set."
    if len(entry.attributes) > SQS_ATTRIBUTES:
        return "InvalidParameterValue", f"A message has at most {SQS_ATTRIBUTES} attributes."
    if not all(map(_is_attribute, entry.attributes.values())):
        return "InvalidParameterValue", "A message attribute is empty or not of its type."
    return None


def _is_attribute(attribute: Attribute) -> bool:
    kinds: dict[str, type] = {"String": str, "Number": str, "Binary": bytes}
    kind = kinds.get(attribute.type.partition(".")[0])
    return kind is not None and isinstance(attribute.value, kind) and bool(attribute.value)


def _fifo_refusal(entry: QueueEntry) -> tuple[str, str] | None:
    if entry.delay:
        return "InvalidParameterValue", "A FIFO queue takes no delay for a single message."
    return None


def _delay_refusal(entry: QueueEntry) -> tuple[str, str] | None:
    if not timedelta(0) <= entry.delay <= SQS_MAX_DELAY:
        return "InvalidParameterValue", f"A delay is from 0 to {SQS_MAX_DELAY}."
    if entry.deduplication_id is not None:
        return "InvalidParameterValue", "Only a FIFO queue takes a deduplication_id."
    return None
