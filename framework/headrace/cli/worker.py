"""`headrace worker`: poll the queues and handle what comes."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from headrace.hosts.settings import ObserveSettings, WorkerSettings
from headrace.observe.logs import configure

from .ending import run_until_stopped
from .loading import Services, load_services


def worker(
    services: Services,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Deliveries handled at a time, per queue. HEADRACE_CONCURRENCY, or 10.",
        ),
    ] = None,
    prefetch: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Deliveries kept waiting in memory beyond those, per queue. HEADRACE_PREFETCH, "
            "or 0.",
        ),
    ] = None,
    pollers: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Receives that may be open at a time, per queue. HEADRACE_POLLERS, or one for "
            "every ten of concurrency and prefetch, and at most 10.",
        ),
    ] = None,
    tenant_concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Deliveries of one tenant handled at a time, per queue. "
            "HEADRACE_TENANT_CONCURRENCY, or no limit.",
        ),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="How long a receive waits for a message, 0 to 20. HEADRACE_WAIT_SECONDS, or 20.",
        ),
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="How much longer an answer to it may take before it is given up and made again. "
            "HEADRACE_PATIENCE_SECONDS, or 10.",
        ),
    ] = None,
    visibility: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="How long a message is hidden by a receive and by each heartbeat. "
            "HEADRACE_VISIBILITY_SECONDS, or what the service's QueueSettings say.",
        ),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Time for running handlers after a stop; on ECS, 5 less than stopTimeout. "
            "HEADRACE_DRAIN_SECONDS, or 25.",
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Where /healthz and /readyz are served. HEADRACE_HEALTH, or nowhere.",
        ),
    ] = None,
    scale_in_protection: Annotated[
        bool | None,
        typer.Option(
            "--scale-in-protection/--no-scale-in-protection",
            help="On ECS, protect the task while a handler runs for long. "
            "HEADRACE_SCALE_IN_PROTECTION, or on.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Poll queues and handle what comes.

    Runs until SIGTERM or Ctrl-C, then finishes what it has begun. The environment says
    which AWS: AWS_REGION, AWS_ENDPOINT_URL, HEADRACE_NAMESPACE. An option wins over its
    variable.
    """
    loaded = load_services(services)
    configure(ObserveSettings.from_environment())
    settings = WorkerSettings.from_environment(
        concurrency=concurrency,
        prefetch=prefetch,
        pollers=pollers,
        per_tenant=tenant_concurrency,
        wait=wait,
        patience=patience,
        visibility=visibility,
        drain=drain,
        health=health,
        scale_in_protection=scale_in_protection,
    )
    from headrace.hosts.worker import run_worker

    for service in loaded:
        queues = ", ".join(service.queues) or "nothing, as it has no handlers"
        logging.info("Starting: %s polls %s.", service.name, queues)
    run_until_stopped(lambda stop: run_worker(loaded, settings=settings, stop=stop), settings.drain)
    logging.info("Stopped: what was running is finished, or comes again.")
