"""Services under test: on AWS in memory, through all that a message passes on a real host.

    async with harness(order, inventory) as aws:
        await aws.put(Stock(sku="MUG", available=3), service=inventory)
        await aws.publish(OrderPlaced(…))
        await aws.settled()
        [confirmed] = aws.published(OrderConfirmed)

Nothing runs in the background, and nothing waits: messages are handled while `settled` is
awaited, and retries come as soon as the clock, which is the harness's own, is moved to them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from headrace.pipeline import running
from headrace.relay import Relay
from headrace.service import ResourcesFactory, Service
from headrace.testing.harness.account import Harness
from headrace.testing.harness.definitions import refuse_unsound, with_resources
from headrace.testing.harness.pump import Pump, Unsettled
from headrace.testing.harness.sendings import Sendings
from headrace.testing.memory import ManualClock, memory_ports
from headrace.topology.derive import topology

__all__ = ["Harness", "Unsettled", "harness"]


@asynccontextmanager
async def harness(
    *services: Service,
    resources: Mapping[Service, ResourcesFactory] | None = None,
    clock: ManualClock | None = None,
) -> AsyncIterator[Harness]:
    """An account of its own with these services in it, and nobody else.

    `resources` are opened in place of a service's own: `{notification: open_fake_mailer}`, or
    `{notification: lambda: nullcontext(mailer)}` for an object that the test has. `clock` is the
    time of the account, by default one that begins with the year 2026.

    Raises `DefinitionError` with what `headrace check` calls an error. Raises `Unsettled` at the
    end of a block that leaves a message waiting which nobody has handled.
    """
    refuse_unsound(services)
    cloud = memory_ports(clock=clock or ManualClock())
    cloud.provision(topology(*services))
    sendings = Sendings(cloud, services)
    async with AsyncExitStack() as stack:
        pipelines = [
            await stack.enter_async_context(running(service, sendings.ports))
            for service in with_resources(services, resources or {})
        ]
        relays = {s: Relay(s, sendings.ports) for s in services if s.emits}
        pump = Pump(cloud, pipelines, relays)
        yield Harness(services, cloud, sendings, pump)
        await pump.refuse_unhandled()
