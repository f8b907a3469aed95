"""Tracebacks for a person: the places in their own code, and how many others were left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException
from types import TracebackType
from typing import Final

from headrace.text import counted

_FRAMEWORK: Final = f"{Path(__file__).parents[1]}{os.sep}"
_CALLS_HANDLERS: Final = f"{_FRAMEWORK}invoke.py"
_TENACITY: Final = f"{os.sep}tenacity{os.sep}"


def shortened(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> str:
    """The traceback of an error, and of what caused it, without the frames of headrace and of what
    it calls handlers by. One that has no others is whole. It ends without a line break."""
    found = TracebackException(kind, error, trace)
    left_out = sum(map(_shorten, _all_in(found)))
    lines = "".join(found.format()).rstrip("\n")
    if not left_out:
        return lines
    return f"{lines}\n({counted(left_out, 'frame')} of headrace left out; JSON logs have them.)"


def _all_in(found: TracebackException) -> Iterator[TracebackException]:
    """The error, what caused it or came before it, and those within a group."""
    waiting = [found]
    while waiting:
        each = waiting.pop()
        yield each
        shows_context = each.__cause__ is None and not each.__suppress_context__
        before = each.__context__ if shows_context else each.__cause__
        waiting += filter(None, (before, *(each.exceptions or ())))


def _shorten(found: TracebackException) -> int:
    """How many frames were taken out of one stack."""
    kept = list(_of_others(found.stack))
    left_out = len(found.stack) - len(kept) if kept else 0
    if left_out:
        found.stack = StackSummary.from_list(kept)
    return left_out


def _of_others(stack: Iterable[FrameSummary]) -> Iterator[FrameSummary]:
    """From the call of a handler on, if that is among them."""
    frames = list(stack)
    called = [n for n, frame in enumerate(frames) if frame.filename == _CALLS_HANDLERS]
    for frame in frames[max(called, default=-1) + 1 :]:
        if not frame.filename.startswith(_FRAMEWORK) and _TENACITY not in frame.filename:
            yield frame
