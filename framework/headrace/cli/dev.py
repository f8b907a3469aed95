"""`headrace dev`: services on a laptop, and a live view of what they do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from headrace.errors import ConfigurationError
from headrace.hosts.settings import ObserveSettings
from headrace.observe.logs import TextFormatter, configure

from .live import Announced, view
from .loading import Services, load_services
from .running import run

_PORT: Final = 4566

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
        Emulator | None,
        typer.Option(
            help="What to start in place of AWS; none starts nothing and uses AWS_ENDPOINT_URL. By "
            "default AWS_ENDPOINT_URL if it is set, or ministack.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            max=65_535,
            help="The port of an emulator that is started whatever AWS_ENDPOINT_URL says; 0 takes "
            "a free one. By default 4566.",
            show_default=False,
        ),
    ] = None,
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

    if emulator is Emulator.NONE and port is not None:
        raise ConfigurationError("--emulator none starts nothing, so there is no --port to choose.")
    # What is asked for wins over variables, which may be those of an emulator that has ended.
    own = port is not None or emulator not in (None, Emulator.NONE)
    loaded = load_services(services)
    console = Console()
    showing = _lines if plain or not console.is_terminal else _table
    with showing(console, loaded, own) as (tally, ready):
        run(
            run_local(
                loaded,
                emulator=(emulator or Emulator.MINISTACK).value,
                observer=tally,
                concurrency=concurrency,
                ready=ready,
                port=_PORT if port is None else port or None,
                own=own,
            )
        )


@contextmanager
def _table(
    console: Console, services: Sequence[Service], own: bool
) -> Iterator[tuple[Tally, Callable[[AwsConfig], None]]]:
    """A table that rewrites itself once everything is ready; logs stand above it."""
    from headrace.observe.tally import Counts, Tally

    level = _log_settings().log_level
    logging.basicConfig(level=level, handlers=[_handler(console)])
    tally = Tally({service.name: Counts() for service in services})
    live = Live(console=console, get_renderable=lambda: view(tally), refresh_per_second=8)

    def ready(config: AwsConfig) -> None:
        console.print("\n".join(_introduction(config, own)), highlight=False, soft_wrap=True)
        live.start()

    try:
        yield tally, ready
    finally:
        live.stop()


@contextmanager
def _lines(
    console: Console, services: Sequence[Service], own: bool
) -> Iterator[tuple[Tally, Callable[[AwsConfig], None]]]:
    """One line for each thing that happens."""
    from headrace.observe.tally import Counts

    configure(_log_settings())
    tally = Announced({service.name: Counts() for service in services})

    def ready(config: AwsConfig) -> None:
        print("\n".join(_introduction(config, own)), flush=True)

    yield tally, ready
    print("\n".join(tally.summary()), flush=True)


def _log_settings() -> ObserveSettings:
    """What happens is shown as it is, so without a wish for more only what is wrong is logged."""
    return ObserveSettings.from_environment(
        log_level=os.environ.get("HEADRACE_LOG_LEVEL") or "WARNING"
    )


def _handler(console: Console) -> logging.Handler:
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    handler.setFormatter(TextFormatter("%(message)s"))
    return handler


def _introduction(config: AwsConfig, own: bool) -> Iterator[str]:
    """Where everything is, with what another terminal needs to talk to it."""
    from headrace.aws.config import SERVICES

    common = config.endpoints["sqs"]
    if os.environ.get("AWS_ENDPOINT_URL") == common and not own:
        yield "AWS_ENDPOINT_URL is set, so what it names is used and no emulator is started."
    yield f"AWS is at {common} for now. In another terminal:"
    yield ""
    yield f"export AWS_ENDPOINT_URL={common}"
    for service, endpoint in sorted(config.endpoints.items()):
        if endpoint != common:
            yield f"export {SERVICES[service]}={endpoint}"
    yield f"export AWS_REGION={config.region} AWS_DEFAULT_REGION={config.region}"
    yield "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    yield ""
