"""What the page on moving a service says of `deploy.toml` and of stacks is so."""

from __future__ import annotations

import re
from pathlib import Path

from headrace.cdk.deployment import Deployment, Placement
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "move-a-service.md"
SYSTEM = f'system = "shop"\nnamespace = "prod"\nsources = "{ROOT}"\n'


def deployments(folder: Path) -> list[Deployment]:
    """What each of the page's `toml` blocks makes of the sample."""
    file = folder / "deploy.toml"
    found = []
    for block in blocks(PAGE):
        if block.language == "toml":
            file.write_text(SYSTEM + block.code)
            found.append(Deployment.read(file))
    return found


def test_the_service_is_on_both_hosts_between_the_one_and_the_other(tmp_path: Path) -> None:
    hosts = [service.options.host for read in deployments(tmp_path) for service in read.services]

    there, back = [Placement.BOTH, Placement.FARGATE], [Placement.BOTH, Placement.LAMBDA]
    assert hosts == there + back


def test_every_stack_that_the_page_names_is_called_so(tmp_path: Path) -> None:
    prefix = deployments(tmp_path)[0].prefix
    known = {f"{prefix}-{rest}" for rest in ("messaging", "inventory-lambda", "inventory-fargate")}

    assert set(re.findall(r"\bshop-[\w-]+", PAGE.read_text())) == known
