"""A process of its own whose modules have sites, so that no other test sees such a module.

Imports nothing of headrace: the process imports this before its sites are made.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from tests.crash import instrument


@contextmanager
def laboratory() -> Iterator[Executor]:
    """One process, started anew and without threads, so it may fork."""
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare) as process:
        yield process


def _prepare() -> None:
    instrument.install()
    # The dead leave coroutines behind that nobody awaits, and what goes wrong is the plan.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    logging.disable(logging.CRITICAL)
