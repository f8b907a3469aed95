"""The demo on what CloudFormation made of the synthesised stack, on an emulator:

    python -m tests.infra.cloudformation --orders 200

It needs Node, for the CDK. The last line is the demo's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.aws.config import AwsConfig
from headrace.aws.deployed import Deployed, looking
from headrace.hosts.emulator import endpoints_environment, ministack
from headrace.service import Service
from headrace.topology.check import Finding
from headrace.topology.derive import topology
from headrace.topology.drift import drift
from services.demo.environment import number_of_orders
from services.demo.run import SERVICES as SHOP
from tests.integration.aws.stacks import config_at, form

if TYPE_CHECKING:
    from headrace.cdk.deployment import Deployment

ROOT: Final = Path(__file__).parents[2]
IGNORED: Final = (
    "does not let items expire",
    "cannot be restored to a point in time",
    "not looked at: whether its index relay is active",
)
"""What is told of tables that ministack's CloudFormation made. It ignores
TimeToLiveSpecification and PointInTimeRecoverySpecification, which its DynamoDB knows, and gives
indexes no status."""


@dataclass(frozen=True, slots=True)
class Formed:
    """A stack that is deployed, and where."""

    endpoint: str
    stack: str
    config: AwsConfig

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that works there."""
        named = endpoints_environment(self.endpoint)
        return {**named, "HEADRACE_NAMESPACE": self.config.namespace}

    async def read(self, services: Sequence[Service] = SHOP) -> Deployed:
        async with looking(self.config) as look:
            return await look.deployed(topology(*services), stack=self.stack)

    async def drift(self, services: Sequence[Service] = SHOP) -> list[Finding]:
        """What differs from the code, but for what the emulator leaves out."""
        found = await self.read(services)
        findings = drift(
            topology(*services),
            found.standing,
            stack=self.stack,
            declared=found.declared,
            relayed={service.table for service in services if service.table and service.emits},
        )
        return [each for each in findings if not each.sentence.startswith(IGNORED)]


def template_of(deployment: Deployment) -> dict[str, Any]:
    """The messaging stack as the CDK synthesises it. Node has to be there."""
    os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "1")
    from aws_cdk import App

    from headrace.cdk.messaging import EventBusStack

    with tempfile.TemporaryDirectory(prefix="headrace-synth-") as folder:
        app = App(outdir=folder)
        EventBusStack(app, stack_of(deployment), deployment)
        written = Path(app.synth().directory, f"{stack_of(deployment)}.template.json")
        template: dict[str, Any] = json.loads(written.read_text())
        return template


def stack_of(deployment: Deployment) -> str:
    return f"{deployment.prefix}-messaging"


@asynccontextmanager
async def formed(deployment: Deployment) -> AsyncIterator[Formed]:
    """An emulator in which the stack is deployed, and nothing else."""
    template = template_of(deployment)
    async with ministack() as endpoint:
        config = config_at(endpoint, deployment.namespace)
        await form(config, stack_of(deployment), template)
        yield Formed(endpoint, stack_of(deployment), config)


# --- the command ---------------------------------------------------------------------------


async def _main(orders: int) -> int:
    from headrace.cdk.deployment import Deployment

    async with formed(Deployment.read(ROOT / "infra" / "deploy.toml")) as there:
        before = (await there.read()).standing
        drifted = await there.drift()
        for finding in drifted:
            print(finding)
        print(f"{there.stack} stands: {len(before.stack or ())} items, {len(drifted)} findings.")
        status = await _demo(there, orders)
        if (await there.read()).standing != before:
            print("wrong: the demo changed what CloudFormation made", file=sys.stderr)
            return 1
        return status or int(bool(drifted))


async def _demo(there: Formed, orders: int) -> int:
    """Its exit status; it prints by itself."""
    sys.stdout.flush()
    command = (sys.executable, "-m", "services.demo", "--provisioned", f"--orders={orders}")
    environ = {**os.environ, **there.environment}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environ)
    return await process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.infra.cloudformation")
    parser.add_argument("--orders", type=number_of_orders, default=200, metavar="N")
    return asyncio.run(_main(parser.parse_args().orders))


if __name__ == "__main__":
    sys.exit(main())
