"""A reader's terminals: one that keeps its variables between blocks, and others that run on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 90.0
"""Seconds until a block that waits for something is taken to have failed."""


def environment() -> dict[str, str]:
    """What a new terminal has: the installed commands, and nothing about AWS."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return {**own, "PATH": path, "AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": ""}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Shell:
    """A terminal in `folder`. Variables that one block sets are there in the next."""

    folder: Path
    variables: Path

    def run(self, code: str) -> str:
        """The output of a block; an `AssertionError` with all of it if a command fails."""
        status, output, errors = self._done(code)
        assert status == 0, f"{code}\n{output}{errors}"
        return output

    def fail(self, code: str) -> str:
        """The output of a block that fails; an `AssertionError` with all of it if it does not."""
        status, output, errors = self._done(code)
        assert status != 0, f"{code}\n{output}{errors}"
        return output

    def _done(self, code: str) -> tuple[int, str, str]:
        """Its status, what it printed, and what it printed as errors."""
        script = f"set -aeo pipefail; source {self.variables}\n{code}\nexport -p > {self.variables}"
        self.variables.touch()
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def run_until(self, code: str, wanted: str) -> str:
        """Repeat a block, as an impatient reader does, until its output has what the page says."""
        end = time.monotonic() + PATIENCE
        while wanted not in (output := self.run(code)):
            assert time.monotonic() < end, f"{wanted!r} never came up in:\n{code}\n{output}"
        return output


@contextmanager
def started(code: str, folder: Path, ready: str) -> Iterator[None]:
    """A terminal of its own that runs on; entered once it has printed `ready`."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {code.strip()}"],
        cwd=folder,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    seen: list[str] = []
    try:
        for line in process.stdout:
            seen.append(line)
            if ready in line:
                break
        else:
            raise AssertionError(f"{code} ended early:\n{''.join(seen)}")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, "".join(seen) + rest
