"""Both emulators together, as a world of one's own: DynamoDB by dynoxide, the rest by ministack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.ports import Delivery, Ports
from headrace.topology.derive import topology
from tests.crash import zygote
from tests.crash.bells import RopePulled, chronicle
from tests.crash.consumer import body_of, live, receive, send
from tests.crash.findings import findings_after, shortcomings
from tests.crash.scenarios import Scenario
from tests.crash.zygote import Death

_PAUSE = timedelta(milliseconds=100)
_SCOUT = "scout"


@dataclass(frozen=True, slots=True)
class Emulators:
    """An account, and the process that forks what is to die there."""

    config: AwsConfig
    ports: Ports
    forks: Executor

    async def kill_everywhere(self, scenario: Scenario) -> tuple[int, list[str]]:
        """Kill a consumer at each moment of the scenario, each with messages of its own. Then
        deliver these again, and say how many moments there were and what is wrong."""
        await provision(topology(scenario.service, chronicle), self.config)
        (scouted,) = await self._received(scenario, [_SCOUT])
        moments = await asyncio.wrap_future(
            self.forks.submit(zygote.explored, scenario.name, _SCOUT, scouted, self.config)
        )
        tags = [f"death-{n}" for n in range(len(moments))]
        received = await self._received(scenario, tags)
        deaths = [
            Death(moment, scenario.pulls(tag)[0].bell, deliveries)
            for moment, tag, deliveries in zip(moments, tags, received, strict=True)
        ]
        wrong = await asyncio.wrap_future(
            self.forks.submit(zygote.killed, scenario.name, deaths, self.config)
        )
        for deliveries in [scouted, *received]:
            await self._show_again(scenario, deliveries)
        return len(moments), [*wrong, *await self._shortcomings(scenario, deaths)]

    async def _received(self, scenario: Scenario, tags: Sequence[str]) -> list[list[Delivery]]:
        """The messages of each tag, sent and received, after the lives that come before."""
        pulls = [pull for tag in tags for pull in scenario.pulls(tag)]
        await send(scenario, self.ports, pulls)
        for trouble in scenario.before:
            deliveries = await receive(scenario, self.ports, pulls)
            await live(scenario, self.ports, deliveries, trouble(pulls[0].bell))
        by_body = {d.body: d for d in await receive(scenario, self.ports, pulls)}
        return [[by_body[body_of(pull)] for pull in scenario.pulls(tag)] for tag in tags]

    async def _show_again(self, scenario: Scenario, deliveries: Sequence[Delivery]) -> None:
        """What a dead process had received is visible at once; what it deleted stays away."""
        changes = [(delivery.receipt_handle, timedelta(0)) for delivery in deliveries]
        await self.ports.queues.change_visibility(scenario.queue, changes)

    async def _shortcomings(self, scenario: Scenario, deaths: Sequence[Death]) -> list[str]:
        pulls = {death.moment: scenario.pulls(f"death-{n}") for n, death in enumerate(deaths)}
        every: list[RopePulled] = [pull for own in pulls.values() for pull in own]
        found = await findings_after(scenario, self.ports, every, True, _PAUSE)
        return [
            f"{moment}: {each}"
            for findings in found
            for moment, own in pulls.items()
            for each in shortcomings(scenario, findings, own)
        ]


@asynccontextmanager
async def emulators(ministack: str, dynoxide: str, forks: Executor) -> AsyncIterator[Emulators]:
    config = AwsConfig(
        namespace=f"crash{uuid4().hex[:10]}",
        endpoints={"sqs": ministack, "events": ministack, "dynamodb": dynoxide},
    )
    async with open_ports(config) as ports:
        yield Emulators(config, ports, forks)
