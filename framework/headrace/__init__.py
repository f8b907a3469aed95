"""headrace leads events to handlers: typed, exactly once in effect, on SQS, EventBridge and
DynamoDB, the same on Lambda and on Fargate."""

from __future__ import annotations

from headrace.context import Context, current
from headrace.entity import Entity
from headrace.envelope import Envelope, Metadata
from headrace.errors import (
    AlreadyDone,
    ConditionNotMet,
    Conflict,
    HeadraceError,
    KeyReused,
    PoisonMessage,
    RetryLater,
)
from headrace.events import Command, Event, upcaster
from headrace.filters import exists, known, none_of, not_, one_of
from headrace.middleware import Call, Invocation, Middleware
from headrace.observe.redaction import Sensitive
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.policy import Backoff, Policy
from headrace.ports import Delivery
from headrace.service import QueueSettings, Service
from headrace.transaction import Transaction

__all__ = [
    "Ack",
    "AlreadyDone",
    "Backoff",
    "Call",
    "Command",
    "ConditionNotMet",
    "Conflict",
    "Context",
    "DeadLetter",
    "Delivery",
    "Entity",
    "Envelope",
    "Event",
    "HeadraceError",
    "Invocation",
    "KeyReused",
    "Metadata",
    "Middleware",
    "Outcome",
    "PoisonMessage",
    "Policy",
    "QueueSettings",
    "Retry",
    "RetryLater",
    "Sensitive",
    "Service",
    "Transaction",
    "current",
    "exists",
    "known",
    "none_of",
    "not_",
    "one_of",
    "upcaster",
]
