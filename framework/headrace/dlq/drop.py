"""Letting go of letters.

For each letter, in this order:

    its inbox records hold messages that may not be out    they are sent, and noted as sent
    it is written to a file, whole
    what waits behind it in its message group goes on
    it is deleted

    killed anywhere    it is still there, perhaps in the file already; dropped again, it is in the
                       file twice
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from headrace.dlq.groups import Selection, fingerprint
from headrace.dlq.holding import MOST, VISIBILITY, Holding, holding
from headrace.dlq.letters import Letter
from headrace.dlq.parked import Parked
from headrace.dlq.reading import Reader
from headrace.dlq.records import Standing
from headrace.errors import CloudError, ConfigurationError, DispatchError
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.observer import Unobserved
from headrace.outbox import Outbox
from headrace.pipeline import require_bus
from headrace.ports import Attribute, Ports
from headrace.service import Service
from headrace.topology.model import dead_letter_queue


@dataclass(slots=True)
class Dropped:
    """What was done: `sent` counts the messages that went out first; `kept` are letters that stay,
    and why."""

    letters: list[Letter] = field(default_factory=list)
    sent: int = 0
    kept: list[tuple[Letter, str]] = field(default_factory=list)


class Drop:
    """Letting go of letters of one queue, into a file."""

    def __init__(
        self,
        service: Service,
        ports: Ports,
        source: str,
        held: Holding,
        selection: Selection,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.report = Dropped()
        self.seen: list[Letter] = []
        self._service = service
        self._ports = ports
        self.holding = held
        self._selection = selection
        self._fifo = source.endswith(".fifo")
        self._reader = Reader(service, source, ports)
        self._parked = Parked(service, source, ports, say)
        self._outbox = Outbox(service.name, service.bus, ports, Unobserved())

    async def selected(self) -> list[Letter]:
        """The letters that are meant; `seen` are all that were looked at. Raises `CloudError`."""
        self.seen = await self._reader.read(await self.holding.fill())
        kept = {letter.id for letter, _ in self.report.kept}
        meant = filter(self._selection.takes, self.seen)
        return [letter for letter in meant if letter.id not in kept]

    async def run(self, file: Path) -> Dropped:
        """Drop them all, ten at a time. Raises `CloudError`, and `ConfigurationError` when the file
        cannot be written; running it again goes on."""
        while letters := await self.selected():
            for start in range(0, len(letters), SQS_BATCH_ENTRIES):
                await self._drop(letters[start : start + SQS_BATCH_ENTRIES], file)
            if not self._fifo:
                break
            # Now those behind them can be seen.
        return self.report

    async def _drop(self, letters: Sequence[Letter], file: Path) -> None:
        standings = await self._reader.records.of(letters)
        out = [letter for letter in letters if await self._send(letter, standings[letter.id])]
        await asyncio.to_thread(_append, file, [_line(letter) for letter in out])
        out = [letter for letter in out if await self._let_go_on(letter)]
        left = await self.holding.delete([letter.delivery for letter in out])
        for letter in out:
            if letter.id in left:
                self.report.kept.append((letter, "SQS has not deleted it."))
            else:
                self.report.letters.append(letter)

    async def _let_go_on(self, letter: Letter) -> bool:
        """Whether nothing waits for this letter any more: without it, nothing would tell of what
        does."""
        stuck = await self._parked.after(letter, dropped=True)
        self.report.kept += [(letter, why) for why in stuck[:1]]
        return not stuck

    async def _send(self, letter: Letter, standing: Standing) -> bool:
        """Whether everything that the letter's handlers have committed to send is out."""
        inbox = self._reader.records.inbox
        if inbox is None or not standing.pending:
            return True
        try:
            emitted = {cls for handler in letter.takers for cls in handler.emits}
            await require_bus(self._service, self._ports, emitted)
            for record in standing.pending:
                await self._outbox.dispatch(record.outgoing)
                inbox.mark_done(record)
                self.report.sent += len(record.outgoing)
            await inbox.flush()
        except (CloudError, DispatchError) as error:
            self.report.kept.append((letter, f"What it caused is not out: {error}"))
            return False
        return True


@asynccontextmanager
async def dropping(
    service: Service,
    ports: Ports,
    source: str,
    selection: Selection,
    *,
    visibility: timedelta = VISIBILITY,
    most: int = MOST,
    say: Callable[[str], None] = lambda text: None,
) -> AsyncIterator[Drop]:
    """A run that holds its letters within this block, and says what becomes of parked groups."""
    queue = dead_letter_queue(source)
    async with holding(ports.queues, queue, visibility=visibility, most=most) as held:
        yield Drop(service, ports, source, held, selection, say)


def _append(file: Path, lines: Sequence[bytes]) -> None:
    """What is written stands on the disk when this returns. Others may not read it: it holds what
    the messages say."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            output.writelines(line + b"\n" for line in lines)
            output.flush()
            os.fsync(output.fileno())
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written ({error.strerror}), so nothing more is dropped: name "
            "another file with --to."
        ) from error


def _line(letter: Letter) -> bytes:
    delivery = letter.delivery
    return orjson.dumps(
        {
            **letter.as_json(),
            "group": fingerprint(letter),
            "trace_header": delivery.trace_header,
            "attributes": dict(_attributes(letter)),
            "body": delivery.body,
        }
    )


def _attributes(letter: Letter) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, attribute in letter.delivery.attributes.items():
        yield name, {"type": attribute.type, **_value(attribute)}


def _value(attribute: Attribute) -> dict[str, str]:
    if isinstance(attribute.value, str):
        return {"value": attribute.value}
    return {"base64": base64.b64encode(attribute.value).decode()}
