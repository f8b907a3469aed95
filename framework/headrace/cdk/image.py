"""The images of a service, which Docker builds when they are deployed, for arm64.

The `Dockerfile` in the folder from which services are imported has a target `service` and takes two
build arguments: `SERVICE` is the path of a service's package, and the image holds that package, its
contracts and nothing of others; `PYTHON` is the version of Python, as `3.13`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from aws_cdk import IgnoreMode
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from headrace.errors import ConfigurationError

from .deployment import Deployment, Placed

TARGET: Final = "service"

COLLECTOR: Final = "public.ecr.aws/aws-observability/aws-otel-collector:v0.47.0"
"""The collector of AWS's distribution of OpenTelemetry, which takes what X-Ray's SDK sends as well
(https://gallery.ecr.aws/aws-observability/aws-otel-collector)."""

_NEVER: Final = ("**/__pycache__", "**/*.py[cod]", "**/.mypy_cache")


def service_image(placed: Placed, deployment: Deployment) -> ecs.ContainerImage:
    """The image of one service. Its digest changes with what is in it, not with other services.

    Raises `ConfigurationError` if there is no Dockerfile.
    """
    return ecs.ContainerImage.from_asset(
        str(_context(deployment)),
        target=TARGET,
        build_args={"SERVICE": package_path(placed), "PYTHON": deployment.python},
        exclude=_others(package_path(placed)),
        ignore_mode=IgnoreMode.DOCKER,
        platform=assets.Platform.LINUX_ARM64,
    )


def collector_image(scope: Construct) -> ecs.ContainerImage:
    """That of the collector, by way of the account's own registry: a network without a way out
    reaches no public one, and what a registry keeps of another begins with a pull from there."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(f"FROM {COLLECTOR}\n")
        asset = assets.DockerImageAsset(
            scope, "CollectorImage", directory=folder, platform=assets.Platform.LINUX_ARM64
        )
    return ecs.ContainerImage.from_docker_image_asset(asset)


def package_path(placed: Placed) -> str:
    """The folder of a service's package, as in `services/inventory`."""
    return placed.package.replace(".", "/")


def _others(path: str) -> list[str]:
    """What is left out of the build: the packages beside this one. What comes last counts."""
    beside, _, _ = path.rpartition("/")
    if not beside:
        return []
    return [f"{beside}/*", f"!{beside}/__init__.py", f"!{path}", *_NEVER]


def _context(deployment: Deployment) -> Path:
    if not (deployment.sources / "Dockerfile").is_file():
        raise ConfigurationError(
            f"There is no Dockerfile in {deployment.sources}: write one with a target {TARGET!r} "
            "that takes the build argument SERVICE, the path of a service's package."
        )
    return deployment.sources
