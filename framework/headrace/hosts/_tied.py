"""Become a command that does not outlive the process that started it.

Run as a script: `python _tied.py <pid of the parent> <command> [argument ...]`. Linux then kills
the command when the thread that started it ends, however it ends; elsewhere there is no such
order, and a parent that is itself killed leaves the command behind. It is given here, between
fork and exec, and not in a `preexec_fn`, which is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("The process that wanted this one ended before it began.")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
