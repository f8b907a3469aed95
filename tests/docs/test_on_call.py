"""The night on call is gone through from its first step to its end, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.docs.pages import ROOT, Block, applied, blocks
from tests.docs.shell import PATIENCE, Shell, environment, free_port

PAGE = ROOT / "docs" / "first-night-on-call.md"
SHOWN = "what it prints"

pytestmark = [pytest.mark.emulator, pytest.mark.slow]


def test_every_step_of_the_night_works_in_its_order(tmp_path: Path) -> None:
    for package in ("services", "schemas"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shell = Shell(tmp_path, tmp_path / ".variables")
    shell.run(f"export PYTHONPATH={ROOT / 'framework'}:. COLUMNS=150 PYTHONUNBUFFERED=1")
    port, printed = str(free_port()), ""
    with ExitStack() as terminals:
        running: dict[str, ExitStack] = {}
        for block in blocks(PAGE):
            code = _on_port(block.code, port)
            if block.language == "diff":
                file = tmp_path / block.title
                file.write_text(applied(block, file.read_text()))
            elif block.title.startswith("terminal"):
                if block.title in running:
                    running.pop(block.title).close()
                running[block.title] = terminals.enter_context(ExitStack())
                running[block.title].enter_context(_terminal(code, shell))
            elif block.title == SHOWN:
                _assert_alike(block, printed)
            else:
                printed = _done(block, code, shell)


def _on_port(code: str, port: str) -> str:
    return code.replace("4566", port).replace("headrace dev ", f"headrace dev --port {port} ")


def _done(block: Block, code: str, shell: Shell) -> str:
    if "fails" in block.options:
        printed = shell.fail(code)
        assert block.options["fails"] in printed
        return printed
    if "until" in block.options:
        return shell.run_until(code, block.options["until"])
    return shell.run(code)


@contextmanager
def _terminal(code: str, shell: Shell) -> Iterator[None]:
    """Another terminal, which is told Ctrl-C at the end of the block: all that runs in it is."""
    screen = shell.folder / f".screen-{uuid4()}"
    with screen.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"source {shell.variables}\n{code}"],
            cwd=shell.folder,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if "headrace dev" in code:
            _await("AWS_ENDPOINT_URL=", screen)
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=PATIENCE)


def _await(text: str, screen: Path) -> None:
    end = time.monotonic() + PATIENCE
    while text not in screen.read_text():
        assert time.monotonic() < end, screen.read_text()
        time.sleep(0.1)


def _assert_alike(block: Block, printed: str) -> None:
    """The page shows what was printed, but for ids, times, the width of columns, and which of two
    letters comes last."""
    real = {_bare(line) for line in printed.splitlines()}
    missing = [line for line in map(_bare, block.code.splitlines()) if line not in real]
    assert missing == [], f"{block} shows something else than:\n{printed}"


def _bare(line: str) -> str:
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", line)
    line = re.sub(r"\b[0-9a-f]{8}\b", "GROUP", line)
    line = re.sub(r"(\d{4}-)?\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?[\d.+:]*", "TIME", line)
    line = re.sub(r'"(Bo|Cher)"', "WHO", line)
    return " ".join(re.sub(r"[─│]", "", line).split())
