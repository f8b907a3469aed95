"""The Bus port in memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final, NoReturn

from headrace.errors import NotProvisioned, Refused
from headrace.limits import PUT_EVENTS_BYTES, PUT_EVENTS_ENTRIES, TRACE_HEADER_CHARACTERS
from headrace.ports import BusEntry, Clock, EntryFailure, QueueEntry, Randomness
from headrace.testing.memory.latitude import ORDERLY, Latitude
from headrace.testing.memory.queues import MemoryQueues
from headrace.testing.memory.refusals import NOT_XML
from headrace.testing.patterns import Predicate, compile_pattern
from headrace.topology.model import Rule

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
_TIME_BYTES: Final = 14
"""What the time of an entry counts for in its size."""


@dataclass(frozen=True, slots=True)
class _Rule:
    takes: Predicate
    spec: Rule


class MemoryBus:
    """EventBridge's rules bus, with queues as targets. `calls` counts calls by the name of
    the port's method. The bus `default` exists from the start."""

    def __init__(
        self,
        clock: Clock,
        randomness: Randomness,
        queues: MemoryQueues,
        latitude: Latitude = ORDERLY,
    ) -> None:
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._randomness = randomness
        self._queues = queues
        self._latitude = latitude
        self._rules: dict[str, dict[str, _Rule]] = {"default": {}}

    # --- what exists ---

    def create(self, bus: str) -> None:
        """Make a bus, unless it is there."""
        self._rules.setdefault(bus, {})

    def create_rule(self, rule: Rule) -> None:
        """Make a rule or replace the one of its name. Raises `Refused` for an invalid
        pattern, `NotProvisioned` when its bus or queue is not there."""
        if not self._queues.exists(rule.queue):
            raise NotProvisioned(
                f"The rule {rule.name!r} has the target {rule.queue!r}, and there is no such "
                "queue; put it into the topology.",
                operation="PutTargets",
                code="ResourceNotFoundException",
            )
        self._of(rule.bus, "PutRule")[rule.name] = _Rule(compile_pattern(rule.pattern), rule)

    def _of(self, bus: str, operation: str) -> dict[str, _Rule]:
        # AWS answers PutEvents for no bus with success, and the event is gone
        # (github.com/aws/aws-sdk/issues/186). A test had better hear of it.
        if bus not in self._rules:
            raise NotProvisioned(
                f"There is no event bus {bus!r}; provision a topology that names it.",
                operation=operation,
                code="ResourceNotFoundException",
            )
        return self._rules[bus]

    # --- the port ---

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        await asyncio.sleep(0)
        return self.put_now(bus, entries)

    def put_now(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        """`put`, at once."""
        self.calls["put"] += 1
        rules = self._of(bus, "PutEvents")
        _require_batch(entries)
        failures: list[EntryFailure] = []
        for index, entry in enumerate(entries):
            reason = _own_refusal(entry) or _refusal(entry)
            if reason is None:
                self._route(rules, entry, ())
            else:
                failures.append(EntryFailure(index, *reason, retryable=False))
        return failures

    async def require(self, bus: str) -> None:
        await asyncio.sleep(0)
        self.require_now(bus)

    def require_now(self, bus: str) -> None:
        """`require`, at once."""
        self.calls["require"] += 1
        self._of(bus, "DescribeEventBus")

    def emit(self, bus: str, entry: BusEntry, *, resources: Sequence[str] = ()) -> None:
        """An event of AWS itself (`source="aws.…"`), which nobody else may put. Raises
        `Refused` for a malformed one."""
        reason = _refusal(entry)
        if reason is not None:
            raise Refused(reason[1], operation="PutEvents", code=reason[0])
        self._route(self._of(bus, "PutEvents"), entry, resources)

    # --- routing ---

    def _route(self, rules: Mapping[str, _Rule], entry: BusEntry, resources: Sequence[str]) -> None:
        envelope = self._envelope(entry, resources)
        event = {**envelope, "detail": json.loads(entry.detail)}
        body = _body(envelope, entry.detail)
        for rule in rules.values():
            if rule.takes(event):
                self._deliver(rule.spec, body, entry.trace_header)

    def _envelope(self, entry: BusEntry, resources: Sequence[str]) -> dict[str, Any]:
        time = (entry.time or self._clock.now()).astimezone(UTC)
        return {
            "version": "0",
            "id": str(self._randomness.uuid()),
            "detail-type": entry.detail_type,
            "source": entry.source,
            "account": ACCOUNT,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": list(resources),
        }

    def _deliver(self, rule: Rule, body: str, trace_header: str | None) -> None:
        # A target that is a FIFO queue has one static group.
        group = rule.name if self._queues.is_fifo(rule.queue) else None
        entry = QueueEntry(body, trace_header=trace_header, group_id=group)
        for _ in range(self._latitude.copies(rule.queue, entry)):
            self._queues.deliver(rule.queue, entry)


def _body(envelope: Mapping[str, Any], detail: str) -> str:
    """The envelope around the detail exactly as it was put, numbers and all. What SQS would
    not carry can only stand inside of a JSON string, and is escaped."""
    head = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
    whole = f'{head[:-1]},"detail":{detail}}}'
    return NOT_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", whole)


# --- what EventBridge does not take ----------------------------------------------------


def _require_batch(entries: Sequence[BusEntry]) -> None:
    if not 1 <= len(entries) <= PUT_EVENTS_ENTRIES:
        raise _refused(f"PutEvents takes 1 to {PUT_EVENTS_ENTRIES} entries, not {len(entries)}.")
    size = sum(map(_entry_bytes, entries))
    if size >= PUT_EVENTS_BYTES:
        raise _refused(f"The entries have {size} bytes; PutEvents takes under {PUT_EVENTS_BYTES}.")
    if not any(map(_is_complete, entries)):
        raise _refused("None of the entries has a source, a detail type and a detail.")
    if any(len(entry.trace_header or "") > TRACE_HEADER_CHARACTERS for entry in entries):
        raise _refused(f"A trace header has at most {TRACE_HEADER_CHARACTERS} characters.")


def _refused(message: str) -> Refused:
    return Refused(message, operation="PutEvents", code="ValidationException")


def _entry_bytes(entry: BusEntry) -> int:
    texts = (entry.source, entry.detail_type, entry.detail)
    return sum(len(text.encode(errors="surrogatepass")) for text in texts) + (
        _TIME_BYTES if entry.time else 0
    )


def _own_refusal(entry: BusEntry) -> tuple[str, str] | None:
    if entry.source.startswith("aws."):
        return "NotAuthorizedForSourceException", "Only AWS itself puts events of a source `aws.…`."
    return None


def _refusal(entry: BusEntry) -> tuple[str, str] | None:
    if not _is_complete(entry):
        return "InvalidArgument", "An entry needs a source, a detail type and a detail."
    if not _is_object(entry.detail):
        return "MalformedDetail", "Detail is malformed: it must be a JSON object."
    return None


def _is_complete(entry: BusEntry) -> bool:
    return bool(entry.source and entry.detail_type and entry.detail)


def _is_object(detail: str) -> bool:
    try:
        return isinstance(json.loads(detail, parse_constant=_no_constant), dict)
    except ValueError:
        return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")
