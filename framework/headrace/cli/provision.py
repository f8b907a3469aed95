"""`headrace provision`: make in AWS, or in an emulator, what services need."""

from __future__ import annotations

from .loading import Services, load_services
from .running import run


def provision(services: Services) -> None:
    """Make what services need in AWS.

    That is the buses, rules, queues and tables that are missing or differ. For emulators
    and trials: what runs in production belongs into a stack. Nothing is deleted.
    """
    from headrace.aws.config import AwsConfig
    from headrace.aws.provision import provision as make
    from headrace.topology.derive import topology

    changes: list[str] = []

    def report(line: str) -> None:
        changes.append(line)
        print(line, flush=True)

    loaded = load_services(services)
    run(make(topology(*loaded), AwsConfig.from_environment(), progress=report))
    if not changes:
        print("Everything was there already; nothing was changed.")
