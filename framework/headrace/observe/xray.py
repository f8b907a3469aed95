"""Traces for AWS X-Ray: a segment for each delivery, with the SDK's entities of users inside."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headrace.envelope import Metadata
from headrace.errors import ConfigurationError
from headrace.observe.xray_segment import (
    Document,
    Segment,
    Step,
    Unsampled,
    here,
    new_id,
    xray_id,
)
from headrace.ports import Delivery
from headrace.trace import is_traceparent
from headrace.tracing import Trace, Untraced

if TYPE_CHECKING:
    from headrace.observe.xray_sdk import Sdk

logger = logging.getLogger(__name__)

_ROOT: Final = re.compile(r"(?<![A-Za-z])Root=1-([0-9a-f]{8})-([0-9a-f]{24})", re.IGNORECASE)
_PARENT: Final = re.compile(r"Parent=([0-9a-f]{16})", re.IGNORECASE)
_SAMPLED: Final = re.compile(r"Sampled=([01])")
_INVALID: Final = re.compile(r"[?;*()!$~^<>]")
"""Characters that X-Ray does not take in the name of a segment, as its SDK has them."""

_INVOCATION: Final = "_X_AMZN_TRACE_ID"
"""The trace of the invocation, which Lambda's runtime puts here before each one."""

_UNTRACED: Final = Untraced()


class Origin(NamedTuple):
    """Where a trace comes from: 32 and 16 hexadecimal digits, and whether it is sampled, if that
    was decided."""

    trace_id: str
    parent_id: str | None = None
    sampled: bool | None = None


class XRayTracer:
    """A segment for each delivery, with a subsegment for each step, sent to X-Ray's daemon.

    The trace is that of the message. A message without one begins a trace that is derived from its
    correlation id and its time, so that it is the same again for whoever else receives it. What
    handlers record with the SDK (`xray_recorder`, `patch`) is part of their step, in tasks and in
    threads. The SDK's sampler decides about what begins here, and `AWS_XRAY_SDK_ENABLED=false`
    turns it all off.

    Raises `ConfigurationError` if the SDK is not installed.
    """

    never_raises: Final = True

    def __init__(self) -> None:
        self._sdk = _sdk()
        self._in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
        self._names: dict[str, str] = {}
        self._is_broken = False

    @property
    def lost(self) -> int:
        """Segments that did not get out of this process, or that nobody on this machine took."""
        return self._sdk.daemon.lost

    def delivery(
        self, service: str, metadata: Metadata, delivery: Delivery
    ) -> AbstractContextManager[Trace]:
        try:
            if self._sdk.is_enabled():
                return self._begun(service, metadata, delivery)
        except Exception:
            self._broke()
        return _UNTRACED.delivery(service, metadata, delivery)

    def received(self, service: str, queue: str, headers: Iterable[str | None]) -> None:
        """Each delivery is a part of its own trace, and none of a trace of the receive."""

    def current(self) -> str | None:
        try:
            return self._current()
        except Exception:
            self._broke()
            return None

    def flush(self) -> None:
        try:
            self._sdk.daemon.flush()
        except Exception:
            self._broke()

    def _begun(self, service: str, metadata: Metadata, delivery: Delivery) -> Segment | Unsampled:
        origin = origin_of(metadata, delivery)
        name = self._names.get(service) or self._name(service)
        invocation = _parsed(os.environ.get(_INVOCATION)) if self._in_lambda else None
        sampled = self._decision(origin, invocation, name)
        if not sampled:
            parent = origin.parent_id or new_id()
            return Unsampled(name, f"00-{origin.trace_id}-{parent}-00")
        segment = Segment(name, origin.trace_id, origin.parent_id, self._put)
        segment.common = self._sdk.common if sampled is True else self._ruled(sampled)
        segment.annotations = {
            "correlation_id": metadata.correlation_id,
            "event": metadata.type,
            "queue": delivery.queue,
            "attempt": delivery.receive_count,
        }
        if invocation is not None:
            segment.annotations["lambda_trace_id"] = xray_id(invocation.trace_id)
        segment.metadata = {"event_id": metadata.id, "message_id": delivery.message_id}
        return segment

    def _decision(self, origin: Origin, invocation: Origin | None, name: str) -> bool | str:
        """The message's own, else that of the invocation that brought it, else the sampler's."""
        if origin.sampled is not None:
            return origin.sampled
        if invocation is not None and invocation.sampled is not None:
            return invocation.sampled
        return self._sdk.decide(name)

    def _put(self, segment: Segment) -> None:
        try:
            self._sdk.finish(segment)
        except Exception:
            self._broke()

    def _name(self, service: str) -> str:
        name = self._names[service] = _INVALID.sub("", service)[:200] or "headrace"
        return name

    def _ruled(self, rule: str) -> Document:
        """What all segments have, with the rule that this one is sampled by."""
        aws = self._sdk.common.get("aws", {})
        xray = {**aws.get("xray", {}), "sampling_rule_name": rule}
        return {**self._sdk.common, "aws": {**aws, "xray": xray}}

    def _current(self) -> str | None:
        if not self._sdk.is_enabled():
            return None
        place = here.get()
        if isinstance(place, (Segment, Unsampled)):
            return place.traceparent
        if isinstance(place, Step):
            return f"00-{place.segment.trace_id}-{place.id}-01"
        if place is None and not self._in_lambda:
            return None
        return _traceparent_of(self._sdk.context.get_trace_entity())

    def _broke(self) -> None:
        """It is said once, and no delivery is the worse for it."""
        if not self._is_broken:
            self._is_broken = True
            logger.exception("Something cannot be traced. This is said once.")


def origin_of(metadata: Metadata, delivery: Delivery) -> Origin:
    """The trace that a message belongs to."""
    traceparent = metadata.traceparent
    if traceparent is None or not is_traceparent(traceparent):
        return _parsed(delivery.trace_header) or Origin(derived_trace_id(metadata))
    trace_id, parent_id = traceparent[3:35], traceparent[36:52]
    if int(traceparent[53:], 16) & 1:
        return Origin(trace_id, parent_id, True)
    header = _parsed(delivery.trace_header)
    if header is not None and header.trace_id == trace_id and header.sampled is None:
        # It was made of a header that leaves the decision to us, which W3C's form cannot say.
        return Origin(trace_id, parent_id)
    return Origin(trace_id, parent_id, False)


def derived_trace_id(metadata: Metadata) -> str:
    """X-Ray's form: 8 digits of the time in seconds, and 24 that tell causes apart."""
    seconds = int(metadata.time.timestamp()) & 0xFFFFFFFF
    return f"{seconds:08x}{sha256(metadata.correlation_id.encode()).hexdigest()[:24]}"


def _parsed(header: str | None) -> Origin | None:
    """What X-Ray's header says, in SQS and of a Lambda invocation; `None` if it names no trace."""
    root = _ROOT.search(header) if header else None
    if header is None or root is None:
        return None
    parent, sampled = _PARENT.search(header), _SAMPLED.search(header)
    return Origin(
        (root[1] + root[2]).lower(),
        parent[1].lower() if parent else None,
        sampled[1] == "1" if sampled else None,
    )


def _traceparent_of(entity: Any) -> str | None:
    """Of what the user's code has open, such as the segment of an HTTP request."""
    if entity is None:
        return None
    trace_id = entity.trace_id.removeprefix("1-").replace("-", "")
    if entity.sampled:
        return f"00-{trace_id}-{entity.id}-01"
    if int(trace_id, 16) == 0:
        # The SDK gives no ids to what is not sampled; what follows from it is not sampled either.
        trace_id = os.urandom(16).hex()
    return f"00-{trace_id}-{new_id()}-00"


def _sdk() -> Sdk:
    try:
        from headrace.observe.xray_sdk import Sdk
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"aws_xray_sdk", "wrapt"}:
            raise
        raise ConfigurationError(
            "HEADRACE_TRACING is xray and the X-Ray SDK is not installed: run "
            "`pip install 'headrace[xray]'`."
        ) from error
    return Sdk()
