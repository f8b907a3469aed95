"""What SQS says of a received message, as one `Delivery`, whichever way it came."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from headrace.ports import Attribute, Delivery

FIFO_SUFFIX: Final = ".fifo"


def delivery(
    *,
    message_id: str,
    receipt_handle: str,
    body: str,
    queue: str,
    system: Mapping[str, str],
    attributes: Mapping[str, Attribute],
    deadline: datetime | None = None,
) -> Delivery:
    """`system` holds SQS's system attributes, which are text and named alike in an answer of
    `ReceiveMessage` and in a Lambda record; `queue` is the logical name."""
    return Delivery(
        message_id=message_id,
        receipt_handle=receipt_handle,
        body=body,
        queue=queue,
        receive_count=int(system.get("ApproximateReceiveCount", "1")),
        group_id=system.get("MessageGroupId"),
        fifo=queue.endswith(FIFO_SUFFIX),
        sequence=system.get("SequenceNumber"),
        sent_at=_instant(system.get("SentTimestamp")),
        trace_header=system.get("AWSTraceHeader"),
        attributes=attributes,
        deadline=deadline,
    )


def is_binary(attribute_type: str) -> bool:
    """`Binary`, or with a label as in `Binary.png`."""
    return attribute_type.partition(".")[0] == "Binary"


def _instant(milliseconds: str | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
