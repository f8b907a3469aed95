"""The command line as a whole: help, exit codes, and what it does without its extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.cli import main
from tests.unit.cli.conftest import Headrace


def test_help_lists_the_commands_and_the_exit_codes(headrace: Headrace) -> None:
    ended = headrace("--help")

    assert ended.code == 0
    for command in ("worker", "dev", "publish", "provision", "topology", "graph", "check"):
        assert f"  {command} " in ended.out
    assert "Exit codes: 0 done; 1 " in ended.out


@pytest.mark.parametrize("group", [[], ["dlq"], ["saga"], ["schemas"]])
def test_help_says_what_each_command_does_without_cutting_it_short(
    headrace: Headrace, group: list[str]
) -> None:
    said = headrace(*group, "--help").out.partition("Commands:")[2]

    assert said
    assert "..." not in said


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["check"], ["worker", "shop.app:till", "--concurrency", "0"]]
)
def test_wrong_usage_ends_with_2(headrace: Headrace, arguments: list[str]) -> None:
    assert headrace(*arguments).code == 2


def test_the_version_can_be_asked(headrace: Headrace) -> None:
    ended = headrace("--version")

    assert ended.code == 0
    assert ended.out.startswith("headrace ")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extras_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 2
    assert "install headrace[cli]" in capsys.readouterr().err


def test_help_imports_no_aws_library() -> None:
    script = (
        "import sys\n"
        "from headrace.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    sys.exit(any(name.startswith(('aiobotocore', 'botocore')) for name in sys.modules))\n"
    )
    path = [entry for entry in sys.path if entry]

    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:] = {path!r}\n{script}"],
        capture_output=True,
        check=False,
        text=True,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
