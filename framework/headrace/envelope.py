"""The envelope: what travels around every event and command, and how its parts are named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import sha1, sha256
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from headrace.events import Message, contract_of
from headrace.text import xml_legal
from headrace.trace import xray_from_traceparent

MessageT_co = TypeVar("MessageT_co", bound=Message, covariant=True)

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]

DERIVED_IDS = UUID("8d3f4a52-6a0e-5c39-9b57-1f3c8a7d2e60")
"""The uuid5 namespace of the ids that headrace derives. Changing it makes every resend a
new event, so it never changes."""


SAGA_SIGNALS: Final = ("SagaTimer.", "SagaIntervention.")
"""How the names of the commands begin that headrace sends to sagas."""


class Metadata(BaseModel):
    """What headrace says about an event.

    `id` is the event's own for as long as it lives, however often it is sent. `correlation_id`
    is shared by all that one cause set off; `causation_id` is the id of the event whose
    handling caused this one. `traceparent` is the W3C trace context.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Identifier
    type: Identifier
    version: int = Field(default=1, ge=1)
    time: AwareDatetime
    correlation_id: Identifier
    causation_id: Identifier | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope(Generic[MessageT_co]):
    """A typed event or command with its metadata, as one delivery brought it."""

    metadata: Metadata
    message: MessageT_co


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message ready to be sent: already JSON, and already with the id it will keep.

    `source` is set for an event and names EventBridge's source; `owner` is set for a command
    and names the service whose queue takes it; `group_id` then stands for its tenant, if it has
    one. `detail` is `{"metadata": …, "data": …}`. A command that is not to arrive before it is
    `due` has the name of a `schedule`, which tells it from all others.
    """

    id: str
    detail_type: str
    detail: str
    time: datetime
    source: str | None = None
    owner: str | None = None
    trace_header: str | None = None
    group_id: str | None = None
    due: datetime | None = None
    schedule: str | None = None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The message of this schedule is not wanted any more. It may come all the same."""

    schedule: str


def derived_id(consumer: str, event_id: str, place: str) -> str:
    """The id of the message that `consumer` sends, in this place, because of `event_id`.

    The same cause gives the same id on every attempt, so a resend is a duplicate downstream
    and not a new event.
    """
    name = f"{consumer}\n{event_id}\n{place}"
    # What `uuid5` does, without the import that it makes each time.
    digest = sha1(DERIVED_IDS.bytes + name.encode(), usedforsecurity=False).digest()
    return str(UUID(bytes=digest[:16], version=5))


def root_metadata(
    message: Message, *, id: str, now: datetime, traceparent: str | None = None
) -> Metadata:
    """The metadata of a message that nothing else caused: its id starts the correlation."""
    contract = contract_of(message)
    return Metadata(
        id=id,
        type=contract.name,
        version=contract.version,
        time=now,
        correlation_id=id,
        traceparent=traceparent,
    )


def caused_metadata(
    message: Message, *, id: str, now: datetime, cause: Metadata, traceparent: str | None
) -> Metadata:
    """The metadata of a message that was sent while `cause` was handled; `traceparent` is that of
    the handling."""
    contract = contract_of(message)
    return Metadata(
        id=id,
        type=contract.name,
        version=contract.version,
        time=now,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        traceparent=traceparent,
    )


def seal(message: Message, metadata: Metadata) -> Outgoing:
    """Write the message as JSON, once; what is stored and what is sent are these characters."""
    contract = contract_of(message)
    payload = message.model_dump_json(by_alias=True)
    detail = f'{{"metadata":{metadata.model_dump_json(exclude_none=True)},"data":{payload}}}'
    return Outgoing(
        id=metadata.id,
        detail_type=contract.name,
        detail=xml_legal(detail),
        time=metadata.time,
        source=contract.source,
        owner=contract.owner,
        trace_header=xray_from_traceparent(metadata.traceparent),
        group_id=_group_of(message, contract.tenant),
    )


def queue_body(outgoing: Outgoing) -> str:
    """The body of a message that goes straight to a queue: the part of EventBridge's
    envelope that says anything."""
    source = f'"source":{_quoted(outgoing.source)},' if outgoing.source else ""
    return f'{{"detail-type":{_quoted(outgoing.detail_type)},{source}"detail":{outgoing.detail}}}'


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


# --- tenants ---------------------------------------------------------------------------

_GROUP_ID: Final = re.compile(r"[!-~]{1,128}")
"""What SQS takes as a MessageGroupId: letters, digits and punctuation of ASCII, no space."""


def _group_of(message: Message, tenant: str | None) -> str | None:
    """The MessageGroupId of a message: its tenant as text, or the SHA-256 of what SQS would not
    take. `None` for a message without a tenant."""
    if tenant is None:
        return None
    value: Any = message
    for name in tenant.split("."):
        value = getattr(value, name, None)
    if value is None:
        return None
    text = str(value.value if isinstance(value, Enum) else value)
    if _GROUP_ID.fullmatch(text):
        return text
    return sha256(text.encode()).hexdigest()
