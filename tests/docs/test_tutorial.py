"""The tutorial is done from its second step to its end, as a reader would, in a shell."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks
from tests.docs.shell import Shell, environment, free_port, started

TUTORIAL = ROOT / "docs" / "tutorial.md"
FIRST_STEP_AFTER_INSTALLING = TUTORIAL.read_text()[: TUTORIAL.read_text().index("## 2.")].count(
    "\n"
)

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("aws", path=environment()["PATH"]) is None,
        reason="the AWS command line (awscli) is not installed",
    ),
]


def on_port(block: Block, port: int) -> Block:
    """The block with another port, so that two runs of this test do not meet."""
    code = block.code.replace("4566", str(port))
    return replace(block, code=code.replace("headrace dev ", f"headrace dev --port {port} "))


def test_every_step_of_the_tutorial_works_in_its_order(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / ".variables")
    steps = [block for block in blocks(TUTORIAL) if block.line > FIRST_STEP_AFTER_INSTALLING]
    port = free_port()
    with ExitStack() as terminals:
        for block in steps:
            do(on_port(block, port), shell, terminals)


def do(block: Block, shell: Shell, terminals: ExitStack) -> None:
    if block.language in ("python", "ini"):
        (shell.folder / block.title).write_text(block.code)
    elif block.title.startswith("terminal"):
        terminals.close()
        folder = ROOT if block.options.get("cwd") == "clone" else shell.folder
        terminals.enter_context(started(block.code, folder, ready="AWS_ENDPOINT_URL="))
    elif "until" in block.options:
        shell.run_until(block.code, block.options["until"])
    else:
        shell.run(block.code)
