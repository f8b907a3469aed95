"""The AWS limits that headrace checks before it calls. One name, one number, one source.

Sources: the service quota pages of SQS, EventBridge and DynamoDB, November 2026.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

SQS_MESSAGE_BYTES: Final = 1 * MIB
"""Body plus message attributes of one message, and of one batch in total."""
SQS_BATCH_ENTRIES: Final = 10
SQS_ATTRIBUTES: Final = 10
SQS_MAX_VISIBILITY: Final = timedelta(hours=12)
SQS_MAX_DELAY: Final = timedelta(minutes=15)
SQS_MAX_WAIT: Final = timedelta(seconds=20)
SQS_MAX_RETENTION: Final = timedelta(days=14)

LAMBDA_SQS_RECORDS: Final = 10_000
"""Of a standard queue in one invocation; of a FIFO queue it is ten."""

PUT_EVENTS_ENTRIES: Final = 10
PUT_EVENTS_BYTES: Final = 1_000_000
"""Sum over the entries of one PutEvents call. Some pages still say 256 KB."""
EVENT_PATTERN_CHARACTERS: Final = 2_048
TRACE_HEADER_CHARACTERS: Final = 500

DYNAMODB_ITEM_BYTES: Final = 400 * KIB
PARTITION_KEY_BYTES: Final = 2_048
SORT_KEY_BYTES: Final = 1_024
TRANSACTION_ACTIONS: Final = 100
TRANSACTION_BYTES: Final = 4 * MIB
BATCH_GET_KEYS: Final = 100
BATCH_WRITE_ITEMS: Final = 25
