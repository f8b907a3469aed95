"""Stacks as they are synthesised. The CDK runs on Node, so without it nothing here is collected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headrace.cdk.deployment import Deployment

ROOT = Path(__file__).parents[2]

os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")

NEEDS_NODE = ("pages", "fargate", "lambda", "messaging", "iam", "shape", "alarms", "cloudformation")

collect_ignore = [] if shutil.which("node") else [f"test_{name}.py" for name in NEEDS_NODE]
"""`.ci/test` says that they are left out."""


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    """The sample shop, every service on both hosts."""
    from headrace.cdk.deployment import Deployment, Placement

    return Deployment.read(ROOT / "infra" / "deploy.toml", host=Placement.BOTH)
