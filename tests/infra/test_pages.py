"""The files that the pages on deploying show make the stacks that they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT, blocks

PAGE: Final = ROOT / "docs" / "how-to" / "deploy-to-lambda.md"

# Bundles are tested by themselves, and take as long as pip does.
WITHOUT_BUNDLES: Final = """
import runpy
import headrace.cdk.app
from tests.infra.code import NO_CODE
headrace.cdk.app.Bundles = lambda deployment, folder: NO_CODE
runpy.run_path("app.py")
"""


def test_the_first_deployment_of_the_page_makes_its_stacks(tmp_path: Path) -> None:
    infra = tmp_path / "infra"
    infra.mkdir()
    for block in blocks(PAGE):
        if block.title:
            (tmp_path / block.title).write_text(block.code)
    out = infra / json.loads((infra / "cdk.json").read_text())["output"]
    path = os.pathsep.join(map(str, (ROOT / "framework", ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_BUNDLES],
        cwd=infra,
        env={**os.environ, "PYTHONPATH": path, "CDK_OUTDIR": str(out)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    named = set(re.findall(r"^\| `(shop-prod-[\w-]+)` \|", PAGE.read_text(), re.M))
    assert {
        file.name.removesuffix(".template.json") for file in out.glob("*.template.json")
    } == named
