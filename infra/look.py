"""Looks through synthesised stacks and the Dockerfile: cdk-nag, cfn-lint, checkov, hadolint.

    python infra/look.py build/cdk.out CHECKOV

The last line is `stacks=N findings=N`; with findings it ends with 1.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
BIN: Final = Path(sys.executable).parent

# W3005: the CDK names a dependency that a reference makes already. It is of no effect.
_CFN_LINT: Final = ("--ignore-checks", "W3005", "--format", "parseable")


def main(arguments: Sequence[str]) -> int:
    out, checkov = map(Path, arguments)
    templates = sorted(out.glob("*.template.json"))
    findings = [
        *_nag(out, [template.name.removesuffix(".template.json") for template in templates]),
        *_cfn_lint(templates),
        *_checkov(checkov, "cloudformation", ["--directory", str(out)]),
        *_checkov(checkov, "dockerfile", ["--file", str(ROOT / "Dockerfile")]),
        *_hadolint(ROOT / "Dockerfile"),
    ]
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    sys.stdout.write(f"stacks={len(templates)} findings={len(findings)}\n")
    return 1 if findings or not templates else 0


def _nag(out: Path, stacks: Sequence[str]) -> Iterator[str]:
    """What cdk-nag wrote beside the templates. A report that is missing is a finding: nobody
    looked."""
    for stack in stacks:
        reports = list(out.glob(f"AwsSolutions-*{stack}-NagReport.csv"))
        if not reports:
            yield f"cdk-nag: {stack}: there is no report: synthesise with -c nag=true"
        for report in reports:
            with report.open(newline="") as rows:
                for row in csv.DictReader(rows):
                    if row["Compliance"] not in ("Compliant", "Suppressed"):
                        yield f"cdk-nag: {row['Rule ID']}: {row['Resource ID']}: {row['Rule Info']}"


def _cfn_lint(templates: Sequence[Path]) -> Iterator[str]:
    said = _run([str(BIN / "cfn-lint"), *_CFN_LINT, *map(str, templates)])
    yield from (f"cfn-lint: {line}" for line in said.splitlines() if line.strip())


def _checkov(checkov: Path, framework: str, where: Sequence[str]) -> Iterator[str]:
    said = _run(
        [
            *(str(checkov), "--framework", framework, "--output", "json", "--compact", "--quiet"),
            *("--skip-download", *where),
        ]
    )
    report: Any = json.loads(said)
    looked = report.get("summary", report).get("passed", 0)
    if not looked:
        yield f"checkov: {framework}: it looked at nothing in {where[-1]}"
    for failed in report.get("results", {}).get("failed_checks", ()):
        yield (
            f"checkov: {failed['check_id']}: {failed['file_path']}: {failed['resource']}: "
            f"{failed['check_name']}"
        )


def _hadolint(dockerfile: Path) -> Iterator[str]:
    said = _run([str(BIN / "hadolint"), "--no-color", str(dockerfile)])
    yield from (f"hadolint: {line}" for line in said.splitlines() if line.strip())


def _run(command: Sequence[str]) -> str:
    """What a tool prints. They end with other numbers than 0 when they find something."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.stderr.strip() and not done.stdout.strip() and done.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
