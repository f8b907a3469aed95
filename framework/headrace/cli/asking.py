"""Asking whoever sits at the terminal before something is done."""

from __future__ import annotations

import asyncio
import sys

from headrace.errors import ConfigurationError


def require_terminal() -> None:
    """Raises `ConfigurationError` where nobody can be asked."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "Nobody can be asked here, as the input is no terminal: add --yes to do it unasked."
        )


async def agreed(question: str) -> bool:
    """Ask without blocking the loop, on which other things go on meanwhile.

    Raises `ConfigurationError` where nobody can be asked.
    """
    require_terminal()
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    print(f"{question} [y/N] ", end="", flush=True)
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().lower() in ("y", "yes")
