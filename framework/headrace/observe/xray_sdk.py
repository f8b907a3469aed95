"""The X-Ray SDK, so that what users record with it lands where they are.

The SDK's own context for coroutines is unusable here: its task factory knows no `context`, and
what it keeps on the current task no thread can see. This one is kept in a context variable. It
imports the SDK, which takes long: import it when traces are on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from threading import RLock
from typing import Any, Final, TypeAlias

from aws_xray_sdk import (  # type: ignore[import-untyped]  # ships no types
    global_sdk_config,
)
from aws_xray_sdk.core import xray_recorder  # type: ignore[import-untyped]  # as above
from aws_xray_sdk.core.context import (  # type: ignore[import-untyped]  # as above
    CXT_MISSING_STRATEGY_KEY,
    Context,
)
from aws_xray_sdk.core.daemon_config import (  # type: ignore[import-untyped]  # as above
    DAEMON_ADDRESS_KEY,
    DaemonConfig,
)
from aws_xray_sdk.core.emitters.udp_emitter import (  # type: ignore[import-untyped]  # as above
    UDPEmitter,
)
from aws_xray_sdk.core.lambda_launcher import (  # type: ignore[import-untyped]  # as above
    LambdaContext,
)
from aws_xray_sdk.core.models.dummy_entities import (  # type: ignore[import-untyped]  # as above
    DummySegment,
)
from aws_xray_sdk.core.models.segment import (  # type: ignore[import-untyped]  # as above
    Segment as SdkSegment,
)
from aws_xray_sdk.core.models.subsegment import (  # type: ignore[import-untyped]  # as above
    Subsegment as SdkSubsegment,
)

from headrace.observe.xray_daemon import LARGEST, Daemon
from headrace.observe.xray_segment import (
    Document,
    Inner,
    Place,
    Segment,
    Step,
    Unsampled,
    alone,
    encoded,
    here,
    xray_id,
)

logger = logging.getLogger(__name__)

Send: TypeAlias = Callable[[Document], None]

TOGETHER: Final = 50
"""So many subsegments are sent with the one that they hang on; more are sent one by one, as they
end, so that a handler may record as many as it likes."""


class _Entity:
    """What an entity that stands for a note does not do, because the note does it."""

    record: Any

    def close(self, end_time: float | None = None) -> None:
        """Its note knows when it ends."""

    def increment(self) -> None:
        """It is not counted what hangs on it."""

    def decrement_ref_counter(self) -> None:
        """As above."""

    def ready_to_send(self) -> bool:
        """Its note is sent."""
        return False

    def to_dict(self) -> Document:
        document: Document = super().to_dict()  # type: ignore[misc]  # of the SDK's class beside it
        document.pop("record", None)
        return document


class _OfSegment(_Entity, SdkSegment):  # type: ignore[misc]  # the SDK has no types
    def __init__(self, record: Segment) -> None:
        super().__init__(record.name, record.id, xray_id(record.trace_id), record.parent_id)
        self.record = record
        self.start_time = record.start


class _OfStep(_Entity, SdkSubsegment):  # type: ignore[misc]  # the SDK has no types
    def __init__(self, record: Step, parent: _OfSegment) -> None:
        super().__init__(record.name, "local", parent)
        self.record = record
        self.id = record.id
        self.parent_id = parent.id
        self.start_time = record.start


class _OfUnsampled(_Entity, DummySegment):  # type: ignore[misc]  # the SDK has no types
    def __init__(self, record: Unsampled) -> None:
        super().__init__(record.name)
        self.record = record
        _, trace_id, self.id, _ = record.traceparent.split("-")
        self.trace_id = xray_id(trace_id)


class DeliveryContext(Context):  # type: ignore[misc]  # the SDK has no types
    """Where the SDK looks for the segment or subsegment that is open, in every task and thread."""

    def __init__(self, outside: Any, send: Send) -> None:
        super().__init__("IGNORE_ERROR")
        self.outside = outside if isinstance(outside, LambdaContext) else None
        self._nothing = DummySegment("nothing")
        self._asked = CXT_MISSING_STRATEGY_KEY in os.environ
        self._send = send
        # Against the end of a segment in one thread, and that of a subsegment in another.
        self._lock = RLock()

    # --- what the SDK asks ---

    def get_trace_entity(self) -> Any:
        place = here.get()
        return self._missing() if place is None else self._entity(place)

    def set_trace_entity(self, trace_entity: Any) -> None:
        here.set(_place_of(trace_entity))

    def clear_trace_entities(self) -> None:
        place = here.get()
        while isinstance(place, Inner) and _is_subsegment(place.entity):
            place = place.outer
        # A segment of the user's own has ended: what was here before it is here again.
        here.set(place.outer if isinstance(place, Inner) else None)

    def put_segment(self, segment: Any) -> None:
        here.set(Inner(segment, here.get(), None, attached=False))

    def end_segment(self, end_time: float | None = None) -> None:
        entity = self.get_trace_entity()
        if entity is None:
            logger.warning("There is no X-Ray segment to end here.")
            return
        segment = entity.parent_segment if _is_subsegment(entity) else entity
        if isinstance(segment, _Entity):
            logger.warning("The X-Ray segment of a delivery ends with it, and not before.")
        elif segment is not self._nothing:
            segment.close(end_time)

    def put_subsegment(self, subsegment: Any) -> None:
        outer = here.get()
        parent = self.get_trace_entity()
        if parent is None:
            return
        top = outer.top if isinstance(outer, Inner) else _top_of(outer)
        subsegment.parent_id = parent.id
        if isinstance(top, Segment):
            attached = subsegment.sampled and self._attached(subsegment, parent, top)
        else:
            attached = _sdk_attached(subsegment, parent, is_nothing=outer is None)
        here.set(Inner(subsegment, outer, top, attached))

    def end_subsegment(self, end_time: float | None = None) -> bool:
        place = here.get()
        if not isinstance(place, Inner) or not _is_subsegment(place.entity):
            if place is not None:
                logger.warning("There is no X-Ray subsegment to end here that was begun here.")
            return False
        with self._lock:
            if place.entity.in_progress:
                place.entity.close(end_time)
            if place.entity.sampled and isinstance(place.top, Segment):
                self._ended(place, place.top)
        here.set(place.outer)
        return True

    # --- what is sent ---

    def finish(self, segment: Segment) -> Document:
        """What a segment is, at its end. What ends in it later is sent by itself."""
        segment.finished = True
        if segment.entity is None:
            return segment.document(merge=False)
        try:
            with self._lock:
                return segment.document(merge=True)
        except Exception:
            # A thread may be recording still, and the SDK's entities are not made for that.
            logger.warning("What was recorded on a segment is left out.", exc_info=True)
            return segment.document(merge=False)

    def _attached(self, subsegment: Any, parent: Any, top: Segment) -> bool:
        """Whether it hangs on its parent now. What a task begins below something that has ended is
        sent by itself, as that may be gone."""
        with self._lock:
            takes = not top.finished if isinstance(parent, _Entity) else parent.in_progress
            if takes:
                parent.subsegments.append(subsegment)
            return takes

    def _ended(self, place: Inner, top: Segment) -> None:
        outer = place.outer
        siblings = [] if outer is None or outer.entity is None else outer.entity.subsegments
        if not place.attached:
            self._send(alone(place.entity))
        elif top.finished:
            # It goes with the one outside of it, if that goes later.
            if not (isinstance(outer, Inner) and outer.entity.in_progress):
                self._send(alone(place.entity))
        elif len(siblings) > TOGETHER and _is_over(place.entity):
            self._send(alone(place.entity))
            siblings.remove(place.entity)

    # --- entities ---

    def _entity(self, place: Place) -> Any:
        """The one that stands for a place, made when it is first asked for."""
        if isinstance(place, Inner):
            return place.entity
        if place.entity is None:
            with self._lock:
                if place.entity is None:
                    place.entity = self._made(place)
        return place.entity

    def _made(self, place: Segment | Step | Unsampled) -> Any:
        if isinstance(place, Step):
            return _OfStep(place, self._entity(place.segment))
        return _OfSegment(place) if isinstance(place, Segment) else _OfUnsampled(place)

    def _missing(self) -> Any:
        """Outside of all: Lambda's own segment, or what the SDK was told to do; otherwise nothing
        that anyone must be told of, as a patched client is used outside of deliveries too."""
        if self.outside is not None:
            return self.outside.get_trace_entity()
        if self._asked and global_sdk_config.sdk_enabled():
            self.handle_context_missing()
            return None
        return self._nothing


def _is_subsegment(entity: Any) -> bool:
    return getattr(entity, "type", None) == "subsegment"


def _is_over(entity: Any) -> bool:
    """Whether it has ended, and all that hangs on it."""
    return not entity.in_progress and all(map(_is_over, entity.subsegments))


def _top_of(place: Segment | Step | Unsampled | None) -> Segment | Unsampled | None:
    return place.segment if isinstance(place, Step) else place


def _sdk_attached(subsegment: Any, parent: Any, *, is_nothing: bool) -> bool:
    """As the SDK does it, outside of deliveries. What stands there for nothing stays for ever, so
    nothing may hang on it."""
    if not parent.in_progress or (is_nothing and not parent.sampled):
        return False
    parent.add_subsegment(subsegment)
    return True


def _place_of(entity: Any) -> Place | None:
    """Where a thread is that was handed an entity of another one."""
    if entity is None or isinstance(entity, _Entity):
        return None if entity is None else entity.record
    segment = entity.parent_segment if _is_subsegment(entity) else entity
    top = segment.record if isinstance(segment, _Entity) else None
    return Inner(entity, None, top, attached=True)


# --- the SDK's recorder ------------------------------------------------------------------


class _Emitter(UDPEmitter):  # type: ignore[misc]  # the SDK has no types
    """Sends what the user's code records outside of deliveries the way of all others."""

    def __init__(self, daemon: Daemon, replaced: UDPEmitter) -> None:
        self._daemon = daemon
        # It has a socket, and Python warns of one that is dropped open.
        self._replaced = replaced

    def send_entity(self, entity: Any) -> None:
        self._daemon.send(entity.serialize().encode())

    def set_daemon_address(self, address: str | None) -> None:
        if address:
            config = DaemonConfig(address)
            self._daemon.move(config.udp_ip, config.udp_port)

    @property
    def ip(self) -> str:
        return self._daemon.host

    @property
    def port(self) -> int:
        return self._daemon.port


class Sdk:
    """The SDK's global recorder, as it is used here: its context is replaced, and where nobody
    gave it one of their own, its emitter."""

    def __init__(self) -> None:
        self.daemon = Daemon(*_address())
        before = xray_recorder.context
        outside = before.outside if isinstance(before, DeliveryContext) else before
        self.context = DeliveryContext(outside, self._send)
        xray_recorder.context = self.context
        if type(xray_recorder.emitter) in (UDPEmitter, _Emitter):
            xray_recorder.emitter = _Emitter(self.daemon, xray_recorder.emitter)
        self.common = self._common()
        _hush()

    def is_enabled(self) -> bool:
        enabled: bool = global_sdk_config.sdk_enabled()
        return enabled

    def decide(self, service: str) -> str | bool:
        """Whether a trace that begins here is sampled, or the name of the rule that says so."""
        if not xray_recorder.sampling:
            return True
        decision: str | bool = xray_recorder.sampler.should_trace({"service": service})
        return decision

    def finish(self, segment: Segment) -> None:
        self._send(self.context.finish(segment))

    def _send(self, document: Document) -> None:
        for part in encoded(document, LARGEST):
            self.daemon.send(part)

    def _common(self) -> Document:
        """What is the same in all segments: the SDK, the runtime, and what plugins found."""
        segment = xray_recorder.begin_segment("headrace", sampling=1)
        self.context.clear_trace_entities()
        told = {name: getattr(segment, name, None) for name in ("aws", "service", "origin")}
        return {name: value for name, value in told.items() if value}


def _address() -> tuple[str, int]:
    """The environment's address; else what the recorder was configured with."""
    if DAEMON_ADDRESS_KEY in os.environ or not hasattr(xray_recorder.emitter, "ip"):
        config = DaemonConfig()
        return config.udp_ip, config.udp_port
    return xray_recorder.emitter.ip, xray_recorder.emitter.port


_SAMPLING: Final = "aws_xray_sdk.core.sampling"


def _hush() -> None:
    """Without a daemon the SDK says so every few minutes, and of every decision it makes without
    rules. Once is enough."""
    deciding = logging.getLogger(f"{_SAMPLING}.sampler")
    if deciding.level == logging.NOTSET:
        deciding.setLevel(logging.WARNING)
    for name in ("rule_poller", "target_poller"):
        poller = logging.getLogger(f"{_SAMPLING}.{name}")
        if not any(isinstance(one, _Once) for one in poller.filters):
            poller.addFilter(_Once())


class _Once(logging.Filter):
    """Lets each message pass once, with its error in place of a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        is_new = record.msg not in self._said
        self._said.add(record.msg)
        if record.exc_info:
            record.msg = f"{record.msg} {record.exc_info[1]}"
            record.exc_info = None
        return is_new
