"""Start the instant server beside whoever needs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def instant_server() -> Iterator[str]:
    """Its address, as `http://127.0.0.1:41234`. It ends with the block, or with this process."""
    command = [sys.executable, "-m", "benchmarks.side.server", "--tied"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"The instant server did not start: run {' '.join(command)}.")
            yield address
        finally:
            process.terminate()
            process.wait()
