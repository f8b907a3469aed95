"""The tutorial on simulation is done from its first step to its end, as a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic

import pytest

from tests.docs.pages import ROOT, Block, applied, blocks
from tests.docs.shell import Shell

PAGE = ROOT / "docs" / "break-your-service.md"
SHOWN = "what it prints"

SETTING = (
    f"export PYTHONPATH={ROOT / 'framework'} PYTHONDONTWRITEBYTECODE=1 "
    "PYTEST_ADDOPTS='-p headrace_pytest -p no:cacheprovider'"
)
"""What `pip install` gives a reader, and a checkout does not."""


@pytest.mark.slow
def test_the_bug_is_found_within_the_default_seeds_and_gone_when_mended(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / ".variables")
    shell.run(SETTING)
    printed, seed = "", ""
    for block in blocks(PAGE):
        if block.language in {"python", "diff"}:
            write(block, tmp_path)
        elif block.language == "bash":
            printed = do(block, shell, seed)
            seed = next(iter(re.findall(r"Seed (\d+) \(", printed)), seed)
        elif block.title == SHOWN:
            assert_alike(block.code, printed)
    assert list(tmp_path.glob(".headrace/test_an_evening_at_the_box_office-*.html"))


def write(block: Block, folder: Path) -> None:
    file = folder / block.title
    file.write_text(applied(block, file.read_text()) if block.language == "diff" else block.code)


def do(block: Block, shell: Shell, seed: str) -> str:
    """What a command prints; how long it takes is said, and nothing rests on it. `seed` is the one
    that was found, which is the page's own until the library takes other steps."""
    code = block.code.replace("--headrace-seeds 1000", "--headrace-seeds 200")
    code = re.sub(r"(?<=--headrace-seed )\d+", seed, code)
    began = monotonic()
    wanted = block.options.get("fails")
    output = shell.run(code) if wanted is None else shell.fail(code)
    print(f"{monotonic() - began:.1f} s: {code.strip()}")
    assert (f"Violation: {wanted}: " if wanted else "passed") in output
    return output


def assert_alike(shown: str, printed: str) -> None:
    """The page shows what was printed, line for line, but for what it leaves out with a `…`."""
    real = [_bare(line) for line in printed.splitlines()]
    print("\n".join(real))
    told = [_bare(line) for line in shown.splitlines()]
    missing = [line for line in told if line not in ("", "…") and line not in real]
    assert missing == [], "The run is another one now: show it in section 4, and tell of it in 5."


def _bare(line: str) -> str:
    line = re.sub(r"^.*(?=no seat is sold twice: )", "", line)
    return line.removeprefix("E").strip()
