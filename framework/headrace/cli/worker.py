"""`headrace worker`: poll the queues and handle what comes."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from .loading import Services, load_services
from .running import run


def worker(
    services: Services,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Deliveries handled at a time, per queue.")
    ] = 10,
) -> None:
    """Poll queues and handle what comes.

    Runs until SIGTERM or Ctrl-C, then finishes what it has begun. The environment says
    which AWS: AWS_REGION, AWS_ENDPOINT_URL, HEADRACE_NAMESPACE.
    """
    from headrace.hosts.worker import run_worker

    loaded = load_services(services)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for service in loaded:
        queues = ", ".join(service.queues) or "nothing, as it has no handlers"
        logging.info("Starting: %s polls %s.", service.name, queues)
    run(run_worker(loaded, concurrency=concurrency))
    logging.info("Stopped: everything that was running is finished.")
