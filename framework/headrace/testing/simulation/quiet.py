"""A run that nothing from outside of it disturbs."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.context import current
from headrace.testing.simulation.loop import SimulatedLoop
from headrace.testing.simulation.trace import Kind, Trace


@contextmanager
def undisturbed(loop: SimulatedLoop, trace: Trace, seed: int) -> Iterator[None]:
    """Nothing from outside decides anything: not the garbage collector, which ends what is
    forgotten at times of its own, and not the state of `random`. What is logged goes into the
    trace."""
    state, root, collecting = random.getstate(), logging.getLogger(), gc.isenabled()
    handlers, disabled = root.handlers[:], root.manager.disable
    gc.disable()
    random.seed(seed)
    root.handlers[:] = [_Logged(loop, trace)]
    logging.disable(logging.NOTSET if trace.on else logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        random.setstate(state)
        if collecting:
            gc.enable()


class _Logged(logging.Handler):
    """Puts what is logged into the timeline."""

    def __init__(self, loop: SimulatedLoop, trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._loop = loop
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        context = current()
        about = () if context is None else (context.metadata.id,)
        self._trace.note(self._loop.current.name, Kind.LOG, record.getMessage(), about)
