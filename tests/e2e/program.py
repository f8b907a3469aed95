"""A command line of this repository, run as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 180


def run(
    *arguments: str, environ: Mapping[str, str], scratch: Path
) -> subprocess.CompletedProcess[str]:
    """`python -m …` with this environment alone; what it leaves behind goes to `scratch`."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PYTHONPATH": f"{ROOT / 'framework'}{os.pathsep}{ROOT}",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
