"""What the server counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.side.server.settings import Settings

_CHUNK: Final = 64 * 1024
"""SQS and EventBridge bill a request or an event for each 64 KiB that it has."""


class Tally:
    """How often something came for each message, up to 255 times."""

    def __init__(self, messages: int) -> None:
        self._times = bytearray(messages)
        self.distinct = 0
        self.repeated = 0

    def note(self, number: int) -> None:
        if number >= len(self._times):
            self._times.extend(bytes(number + 1 - len(self._times)))
        times = self._times[number]
        if times == 0:
            self.distinct += 1
        else:
            self.repeated += 1
        self._times[number] = min(times + 1, 255)

    def absent(self, numbers: slice) -> int:
        """Messages among these for which it never came."""
        return self._times[numbers].count(0)


class Counts:
    """Everything since the last reset. `deleted`, `effects` and `events` are numbers of messages,
    each counted once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []
        self.clear()

    def clear(self) -> None:
        """Count from 0 again."""
        settings = self._settings
        self.calls: Counter[str] = Counter()
        self.bytes_in: Counter[str] = Counter()
        self.received = 0
        self.sent = 0
        self.sent_elsewhere = 0
        self.refused = 0
        """Writes whose condition did not hold."""
        self.write_units = 0.0
        self.read_units = 0.0
        self.queue_chunks = 0
        self.event_chunks = 0
        self.deleted = Tally(settings.messages)
        self.effects = Tally(settings.messages)
        self.events = Tally(settings.messages)

    def called(self, operation: str, size: int) -> None:
        self.calls[operation] += 1
        self.bytes_in[operation] += size

    def billed_by_queue(self, size: int) -> None:
        self.queue_chunks += chunks(size)

    def told(self) -> None:
        """Wake those who wait for a number that is reached by now."""
        for name, reached, waiter in self._waiting:
            if self.number(name) >= reached and not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Nothing is counted any more: whoever waits gets what there is."""
        for _, _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, name: str, reached: int) -> None:
        """Wait until this number is so high. Raises as `number` does."""
        if self.number(name) >= reached:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (name, reached, waiter)
        self._waiting.append(entry)
        try:
            await waiter
        finally:
            self._waiting.remove(entry)

    def number(self, name: str) -> int:
        """What is counted by that name, or how often an operation was called. Raises
        `ValueError` for what is neither."""
        if name[:1].isupper():
            return self.calls[name]
        if name in ("received", "sent", "sent_elsewhere", "refused"):
            return int(getattr(self, name))
        return self._tally(name).distinct

    def as_json(self) -> dict[str, Any]:
        tallies = {name: self._tally(name) for name in ("effects", "events", "deleted")}
        return {
            "messages": self._settings.messages,
            "received": self.received,
            "sent": self.sent,
            "sent_elsewhere": self.sent_elsewhere,
            "refused": self.refused,
            **{name: tally.distinct for name, tally in tallies.items()},
            "lost": {name: self._lost(tally) for name, tally in tallies.items()},
            "doubled": {name: tally.repeated for name, tally in tallies.items()},
            "wrong": {name: self._wrong(tallies[name]) for name in ("effects", "events")},
            "calls": dict(sorted(self.calls.items())),
            "all_calls": self.calls.total(),
            "bytes_in": dict(sorted(self.bytes_in.items())),
            "write_units": self.write_units,
            "read_units": self.read_units,
            "queue_chunks": self.queue_chunks,
            "event_chunks": self.event_chunks,
        }

    def _tally(self, name: str) -> Tally:
        tallies: Mapping[str, Tally] = {
            "deleted": self.deleted,
            "effects": self.effects,
            "events": self.events,
        }
        if name not in tallies:
            raise ValueError(f"'{name}' is not counted: ask for received, sent, {[*tallies]}.")
        return tallies[name]

    def _lost(self, tally: Tally) -> int:
        """Good messages for which it did not come."""
        return tally.absent(slice(0, self._settings.messages)) - tally.absent(self._bad())

    def _wrong(self, tally: Tally) -> int:
        """Bad messages for which it came all the same."""
        bad = self._bad()
        return len(range(*bad.indices(self._settings.messages))) - tally.absent(bad)

    def _bad(self) -> slice:
        """The numbers for which `work.is_bad` holds."""
        if not self._settings.poison:
            return slice(0, 0)
        every = round(1 / self._settings.poison)
        return slice(every // 2, self._settings.messages, every)


def chunks(size: int) -> int:
    return max(1, -(-size // _CHUNK))
