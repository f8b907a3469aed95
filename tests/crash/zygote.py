"""Deaths of real processes: this one has everything ready, with sites, and forks for each.

A fork handles what was received for it, on emulators of AWS, and kills itself at its moment.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import traceback
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from headrace.aws.client import open_ports, preload
from headrace.aws.config import AwsConfig
from headrace.ports import Delivery, Ports
from tests.crash.consumer import live
from tests.crash.passing import Life, Moment, living
from tests.crash.scenarios import Scenario, named

AT_ONCE = 3
"""Forks that live at a time; while one waits for an emulator, another has the processor."""
_LONGEST_SECONDS = 60


class Death(NamedTuple):
    """A life that is to end at its moment, while it handles these deliveries of this bell."""

    moment: Moment
    bell: str
    deliveries: Sequence[Delivery]


def explored(
    name: str, bell: str, deliveries: Sequence[Delivery], config: AwsConfig
) -> list[Moment]:
    """Every moment of a life in this scenario. How often a site is passed is not told: that
    depends on how fast the emulators answer."""
    life = Life()
    asyncio.run(_explore(life, named(name), bell, deliveries, config))
    return [moment for moment in life.moments() if moment.nth == 1]


def killed(name: str, deaths: Sequence[Death], config: AwsConfig) -> list[str]:
    """Fork once for each, and let it die; what is wrong with how they ended."""
    scenario, waiting, forks = named(name), list(deaths), dict[int, Death]()
    ports = _ready(config)
    wrong: list[str] = []
    while waiting or forks:
        while waiting and len(forks) < AT_ONCE:
            death = waiting.pop()
            forks[_fork(scenario, death, ports)] = death
        pid, status = os.wait()
        death = forks.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            wrong.append(f"{death.moment}: the process was not killed, it ended with {code}")
    return wrong


def _fork(scenario: Scenario, death: Death, ports: Ports) -> int:
    pid = os.fork()
    if pid:
        return pid
    # Nothing of the parent's may run here a second time, whatever happens: hence `_exit`.
    try:
        signal.alarm(_LONGEST_SECONDS)
        life = Life(death.moment, partial(os.kill, os.getpid(), signal.SIGKILL))
        asyncio.run(_live(life, scenario, death.bell, death.deliveries, ports))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


async def _live(
    life: Life, scenario: Scenario, bell: str, deliveries: Sequence[Delivery], ports: Ports
) -> None:
    with living(life):
        await live(scenario, ports, deliveries, scenario.goes_wrong(bell))


async def _explore(
    life: Life, scenario: Scenario, bell: str, deliveries: Sequence[Delivery], config: AwsConfig
) -> None:
    async with open_ports(config) as ports:
        await _live(life, scenario, bell, deliveries, ports)


def _ready(config: AwsConfig) -> Ports:
    """Ports for every fork to use: making clients would be most of the time of a life. They
    connect when they are first used, so they belong to no event loop yet; nobody closes them."""
    preload()
    # Every client reads a megabyte of certificates, and nothing here speaks TLS.
    ssl.SSLContext.load_verify_locations = lambda *_, **__: None  # type: ignore[method-assign]
    ports = _loop.run_until_complete(_never_closed.enter_async_context(open_ports(config)))
    gc.freeze()
    return ports


_loop = asyncio.new_event_loop()
_never_closed = AsyncExitStack()
