"""What a bundle runs on: a Python on a kind of machine, here or on Lambda."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

Machine: TypeAlias = Literal["arm64", "x86_64", "here"]
"""Lambda's two, and that of the interpreter that builds, with which a bundle can be tried."""

_NAMES: Final = {"arm64": "aarch64", "x86_64": "x86_64"}

_OLDEST_GLIBC: Final = 17
_GLIBC: Final = {"3.11": 26}
_GLIBC_NOW: Final = 34
"""Python 3.11 is on Amazon Linux 2, later ones on Amazon Linux 2023 ("Lambda runtimes", developer
guide), which have glibc 2.26 and 2.34."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """`python` is a minor version, as `3.13`."""

    python: str
    machine: Machine

    @property
    def tag(self) -> str:
        """What CPython calls its bytecode, in the names of the files that hold it."""
        return f"cpython-{self.python.replace('.', '')}"

    def pip_options(self) -> list[str]:
        """Of `pip install`: which wheels fit, newest C library first."""
        if self.machine == "here":
            return []
        name = _NAMES[self.machine]
        newest = _GLIBC.get(self.python, _GLIBC_NOW)
        platforms = [
            f"manylinux_2_{glibc}_{name}" for glibc in range(newest, _OLDEST_GLIBC - 1, -1)
        ]
        options = ["--implementation", "cp", "--python-version", self.python]
        for platform in (*platforms, f"manylinux2014_{name}"):
            options += ["--platform", platform]
        return options

    def markers(self) -> dict[str, str] | None:
        """The variables of environment markers; None where they are those of this interpreter."""
        if self.machine == "here":
            return None
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": _NAMES[self.machine],
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def __str__(self) -> str:
        where = "this machine" if self.machine == "here" else self.machine
        return f"Python {self.python} on {where}"


def interpreter(python: str) -> str | None:
    """An interpreter of this minor version, which makes bytecode for it: that of the variable
    PYTHON313, as it is for 3.13, or else this one, or one on the PATH or under pyenv."""
    named = os.environ.get(f"PYTHON{python.replace('.', '')}")
    if named:
        return named if _is(named, python) else None
    if python == here():
        return sys.executable
    return next((path for path in _candidates(python) if _is(path, python)), None)


def here() -> str:
    """The minor version of this interpreter."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _candidates(python: str) -> Iterator[str]:
    if found := shutil.which(f"python{python}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{python}*/bin/python"), reverse=True))


@cache
def _is(path: str, python: str) -> bool:
    # A shim of pyenv may be on the PATH and yet run nothing.
    said = _output([path, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    return said.strip() == python


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout
