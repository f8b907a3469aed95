"""An event loop that waits for nobody: where all would sleep, its time moves on at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

START: Final = datetime(2026, 1, 1, tzinfo=UTC)

_THREADS_SECONDS: Final = 10.0
"""How long, in real time, a thread may take to answer when nothing else is left to wait for."""


class _SkippingSelector(selectors.BaseSelector):
    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None:
            self.skipped += max(timeout, 0)
            return self._inner.select(0)
        found = self._inner.select(_THREADS_SECONDS)
        if not found:
            raise RuntimeError("Everything waits, and nothing is left that it could wait for.")
        return found

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


class SkippingLoop(asyncio.SelectorEventLoop):
    """Timeouts, lingering and long polls take no time; only threads are waited for."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.skipped


class LoopClock:
    """The time of day by the loop that was running when it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time())
