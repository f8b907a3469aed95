"""`headrace dev`: services on a laptop, and a live view of what they do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from headrace.hosts.settings import ObserveSettings
from headrace.observe.logs import configure

from .live import Announced, view
from .loading import Services, load_services
from .running import run

if TYPE_CHECKING:
    from headrace.aws.config import AwsConfig
    from headrace.observe.tally import Tally
    from headrace.service import Service


class Emulator(StrEnum):
    """What stands in for AWS; `none` is whatever AWS_ENDPOINT_URL names."""

    MINISTACK = "ministack"
    LOCALSTACK = "localstack"
    NONE = "none"


def dev(
    services: Services,
    emulator: Annotated[
        Emulator, typer.Option(help="What to start in place of AWS; none uses AWS_ENDPOINT_URL.")
    ] = Emulator.MINISTACK,
    port: Annotated[int, typer.Option(help="The emulator's port; 0 takes a free one.")] = 4566,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Deliveries handled at a time, per queue.")
    ] = 10,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> None:
    """Run services on a local emulator of AWS.

    All in one process, until Ctrl-C, showing what each service receives, finishes and
    publishes as it happens.
    """
    from headrace.hosts.local import run_local

    loaded = load_services(services)
    console = Console()
    showing = _lines if plain or not console.is_terminal else _table
    with showing(console, loaded) as (tally, ready):
        run(
            run_local(
                loaded,
                emulator=emulator.value,
                observer=tally,
                concurrency=concurrency,
                ready=ready,
                port=port or None,
            )
        )


@contextmanager
def _table(
    console: Console, services: Sequence[Service]
) -> Iterator[tuple[Tally, Callable[[AwsConfig], None]]]:
    """A table that rewrites itself once everything is ready; logs stand above it."""
    from headrace.observe.tally import Counts, Tally

    level = _log_settings().log_level
    logging.basicConfig(level=level, format="%(message)s", handlers=[_handler(console)])
    tally = Tally({service.name: Counts() for service in services})
    live = Live(console=console, get_renderable=lambda: view(tally), refresh_per_second=8)

    def ready(config: AwsConfig) -> None:
        console.print("\n".join(_introduction(config)), highlight=False, soft_wrap=True)
        live.start()

    try:
        yield tally, ready
    finally:
        live.stop()


@contextmanager
def _lines(
    console: Console, services: Sequence[Service]
) -> Iterator[tuple[Tally, Callable[[AwsConfig], None]]]:
    """One line for each thing that happens."""
    from headrace.observe.tally import Counts

    configure(_log_settings())
    tally = Announced({service.name: Counts() for service in services})

    def ready(config: AwsConfig) -> None:
        print("\n".join(_introduction(config)), flush=True)

    yield tally, ready
    print("\n".join(tally.summary()), flush=True)


def _log_settings() -> ObserveSettings:
    """What happens is shown as it is, so without a wish for more only what is wrong is logged."""
    return ObserveSettings.from_environment(
        log_level=os.environ.get("HEADRACE_LOG_LEVEL") or "WARNING"
    )


def _handler(console: Console) -> logging.Handler:
    return RichHandler(console=console, show_path=False, rich_tracebacks=False)


def _introduction(config: AwsConfig) -> Iterator[str]:
    """Where everything is, with what another terminal needs to talk to it."""
    from headrace.aws.config import SERVICES

    common = config.endpoints["sqs"]
    yield f"AWS is at {common} for now. In another terminal:"
    yield ""
    yield f"export AWS_ENDPOINT_URL={common}"
    for service, endpoint in sorted(config.endpoints.items()):
        if endpoint != common:
            yield f"export {SERVICES[service]}={endpoint}"
    yield f"export AWS_REGION={config.region} AWS_DEFAULT_REGION={config.region}"
    yield "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    yield ""
