"""A run that nothing from outside of it disturbs."""

from __future__ import annotations

import gc
import logging
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import NoReturn
from unittest.mock import patch

from headrace.context import current
from headrace.testing.simulation.loop import OutOfReach, SimulatedLoop
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
        with _offline():
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
        text = f"{record.getMessage()}{_where(record)}"
        self._trace.note(self._loop.current.name, Kind.LOG, text, about)


def _where(record: logging.LogRecord) -> str:
    """The line that raised what is logged."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or error.__traceback__ is None:
        return ""
    *_, (frame, line) = walk_tb(error.__traceback__)
    code = frame.f_code
    return f" ({Path(code.co_filename).name}:{line} in {code.co_name})"


def _refused(*_: object, **__: object) -> NoReturn:
    raise OutOfReach(
        "A simulation does not reach the network: give the service resources of the simulation, "
        "and let them use World.outside."
    )


@contextmanager
def _offline() -> Iterator[None]:
    """Nobody's real payment gateway is called a hundred times."""
    with ExitStack() as stack:
        for owner, name in (
            (socket.socket, "connect"),
            (socket.socket, "connect_ex"),
            (socket, "getaddrinfo"),
        ):
            stack.enter_context(patch.object(owner, name, _refused))
        yield
