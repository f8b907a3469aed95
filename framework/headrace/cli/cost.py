"""`headrace cost`: what a million units of work cost, on Lambda and on Fargate."""

from __future__ import annotations

import json
from datetime import timedelta
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.errors import ConfigurationError

from .loading import Services, load_module, load_services

if TYPE_CHECKING:
    from headrace.cost.work import Work


def cost(
    services: Services,
    work: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="What is done, as in services.demo.work:orders.",
            show_default=False,
        ),
    ],
    times: Annotated[int, typer.Option(help="How many units of work are done.")] = 100,
    at_a_time: Annotated[
        int, typer.Option(help="So many of them together: 1 is a quiet system.")
    ] = 10,
    batch: Annotated[int, typer.Option(help="Messages in an invocation of Lambda.")] = 10,
    window: Annotated[float, typer.Option(help="Seconds for which these are gathered.")] = 0.0,
    timeout: Annotated[float, typer.Option(help="Of the function, in seconds.")] = 10.0,
    call_ms: Annotated[float, typer.Option(help="How long a call to AWS takes.")] = 8.0,
    ms_per_message: Annotated[
        float, typer.Option(help="Milliseconds of one vCPU for a message.")
    ] = 5.0,
    memory: Annotated[int, typer.Option(help="Of a function, in megabytes.")] = 512,
    vcpu: Annotated[float, typer.Option(help="Of a task.")] = 0.5,
    task_memory: Annotated[float, typer.Option(help="Of a task, in gigabytes.")] = 1.0,
    utilisation: Annotated[
        float, typer.Option(help="How much of their time tasks have something to do.")
    ] = 0.5,
    tasks: Annotated[int, typer.Option(help="Of each service, at all times.")] = 1,
    lambda_pollers: Annotated[int, typer.Option(help="Long polls of Lambda on a queue.")] = 5,
    vpc_endpoints: Annotated[
        int, typer.Option(help="Interface endpoints of tasks, times zones.")
    ] = 0,
    bytes_per_line: Annotated[int, typer.Option(help="Of the log.")] = 250,
    per_month: Annotated[
        float, typer.Option(help="Units of work in a month, for its total.")
    ] = 1_000_000,
    prices: Annotated[
        Path | None, typer.Option(help="A file of your own prices, in place of headrace's.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="The region that the prices must be of.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Say what a million units of work cost, on either host.

    The work is done on the services in memory, once on each host, and what it is billed for is
    counted. Nothing is asked of AWS. What memory cannot show is assumed, and said.
    """
    from headrace.cost.bill import Assumed, bill
    from headrace.cost.hosts import EventSource, Host
    from headrace.cost.measure import Load, measure
    from headrace.cost.prices import PRICES, load_prices
    from headrace.cost.report import Report, as_text
    from headrace.cost.report import as_json as to_json

    assumed = Assumed(
        ms_per_message=ms_per_message,
        memory=memory,
        pollers=lambda_pollers,
        vcpu=vcpu,
        task_memory=task_memory,
        utilisation=utilisation,
        tasks=tasks,
        vpc_endpoints=vpc_endpoints,
        bytes_per_line=bytes_per_line,
    )
    source = EventSource(
        batch=batch,
        window=timedelta(seconds=window),
        pollers=lambda_pollers,
        timeout=timedelta(seconds=timeout),
    )
    load = Load(
        times=times, at_a_time=at_a_time, call=timedelta(milliseconds=call_ms), source=source
    )
    if per_month <= 0:
        raise ConfigurationError("A month has more than 0 units of work: see --per-month.")
    priced = load_prices(prices or PRICES, region=region)
    loaded, done = load_services(services), load_work(work)
    measured = {host: measure(host, loaded, done, load) for host in Host}
    found = bill(measured[Host.LAMBDA], measured[Host.FARGATE], assumed, priced.prices)
    names = [service.name for service in loaded]
    report = Report(names, load, [*measured.values()], assumed, priced, found, per_month)
    if as_json:
        print(json.dumps(to_json(report), indent=2, ensure_ascii=False))
    else:
        print(as_text(report))


def load_work(name: str) -> Work:
    """From `services.demo.work:orders` to the work. Raises `ConfigurationError` with what there
    is."""
    from headrace.cost.work import Work

    module_name, _, attribute = name.strip().partition(":")
    if not module_name:
        raise ConfigurationError(
            f"--work {name!r} names no module: write module:function, as in "
            "services.demo.work:orders."
        )
    module = load_module(module_name)
    found = getattr(module, attribute, None) if attribute else None
    if isinstance(found, Work):
        return found
    if iscoroutinefunction(found):
        return Work(found)
    raise ConfigurationError(f"--work {_complaint(name, attribute, found)} {_work_in(module)}")


def _complaint(name: str, attribute: str, found: object) -> str:
    if not attribute:
        return f"{name!r} does not say which function: write module:function."
    if found is None:
        return f"{name!r} names nothing."
    return f"{name!r} is no `async def` function of an account, and no work of headrace.cost."


def _work_in(module: ModuleType) -> str:
    from headrace.cost.work import Work

    names = sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, Work)
        or (iscoroutinefunction(value) and value.__module__ == module.__name__)
    )
    if not names:
        return f"{module.__name__} has no work."
    return f"{module.__name__} has this work: {', '.join(names)}."
