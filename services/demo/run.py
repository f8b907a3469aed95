"""One run of the demo, from an empty account to a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console

from headrace.aws.client import open_ports
from headrace.aws.config import SERVICES as AWS_SERVICES
from headrace.aws.config import AwsConfig
from headrace.errors import ConfigurationError, HeadraceError
from headrace.hosts.worker import run_worker
from headrace.ports import Ports
from services.demo.found import look, until_over
from services.demo.report import progress_of
from services.demo.script import BAD_MESSAGES, Script, place_orders, restock, reuse_an_order_id
from services.demo.verdict import Verdict, judge
from services.demo.watch import Watch, missing
from services.inventory.app import inventory
from services.notification.app import notification
from services.order.app import order

SERVICES = (order, inventory, notification)


class Stopped(HeadraceError):
    """The services were stopped before the run had ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `unfinished` is a sentence, empty if everything happened that should."""

    verdict: Verdict
    seconds: float
    unfinished: str = ""


@asynccontextmanager
async def standing_aws() -> AsyncIterator[AwsConfig]:
    """What `AWS_ENDPOINT_URL` names, as it is: nothing is made there. Raises `ConfigurationError`
    when that is AWS itself."""
    config = AwsConfig.from_environment()
    remote = [service for service in AWS_SERVICES if not config.is_local(service)]
    if remote:
        raise ConfigurationError(
            f"No local endpoint is named for {', '.join(remote)}, and nothing here may touch an "
            "AWS account: set AWS_ENDPOINT_URL."
        )
    yield config


async def run(
    script: Script,
    watch: Watch,
    *,
    aws: AbstractAsyncContextManager[AwsConfig],
    limit: float,
    folder: Path,
    console: Console,
) -> Ended:
    """Open an AWS that is not AWS, start the services, send what the script says, and await its
    end for `limit` seconds. Raises `Stopped` at a signal, and `HeadraceError` when something does
    not start."""
    with console.status("Starting the emulator …") as status:
        async with aws as config, open_ports(config) as ports:
            status.stop()
            started = perf_counter()
            unfinished = await _play(ports, script, watch, limit, console)
            seconds = perf_counter() - started
            found = await look(ports, script.sample, SERVICES, folder, over=not unfinished)
            return Ended(judge(script, watch, found), seconds, unfinished)


async def _play(ports: Ports, script: Script, watch: Watch, limit: float, console: Console) -> str:
    """Run workers and script side by side; what is unfinished in the end, as a sentence."""
    stop = asyncio.Event()
    workers = asyncio.create_task(run_worker(SERVICES, ports, observer=watch, stop=stop))
    acts = asyncio.create_task(_act(ports, script, watch))
    with progress_of(watch, script, console):
        ended, _ = await asyncio.wait(
            (workers, acts), timeout=limit, return_when=asyncio.FIRST_COMPLETED
        )
        acts.cancel()
        stop.set()
        await asyncio.wait((workers, acts))
    workers.result()
    if not acts.cancelled():
        acts.result()
        return ""
    late = "; ".join(_missing(script, watch)) or "it had not ended"
    if workers in ended:
        raise Stopped(f"The run was stopped: {late}.")
    return f"It took longer than {limit:g} s: {late}."


async def _act(ports: Ports, script: Script, watch: Watch) -> None:
    await restock(ports, script.sample)
    await watch.until(lambda: watch.done(inventory.name) == len(script.sample.stock))
    await place_orders(ports, script, watch)
    # Not before: of two commands with one order id, the first to come is the order.
    await watch.until(lambda: script.reused.order_id in watch.placed)
    await reuse_an_order_id(ports, script)
    await watch.until(lambda: not _missing(script, watch))
    queues = [queue for service in SERVICES for queue in service.queues]
    await until_over(ports, script.sample, queues)


def _missing(script: Script, watch: Watch) -> list[str]:
    return missing(watch, script.order_ids, BAD_MESSAGES, script.doubled_id)
