"""A task definition of a service: its own container, and a collector of traces beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from .deployment import Deployment, Placed
from .excuses import Excuse, excuse
from .image import collector_image, service_image
from .network import LOG_GROUP, LOGS_KEPT
from .variables import variables

USER: Final = "10001:10001"
"""Whom the Dockerfile makes. Only /tmp may be written to."""
HEALTH_PORT: Final = 8080
HTTP_PORT: Final = 8000
FAREWELL: Final = 5
"""Seconds of `stop_timeout` that are not for handlers: what is left is handed back in them."""
KEPT_ALIVE: Final = 75
"""Seconds for which HTTP connections are kept: longer than the 60 of a load balancer, or it sends
a request on one that is being closed, and answers 502."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a container runs, as ENTRYPOINT and CMD in exec form, and where it tells its health."""

    entry_point: tuple[str, ...]
    command: tuple[str, ...]
    health: str
    port: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def worker(placed: Placed) -> Program:
    """Polls the queues of the service. Its health is told within the task only."""
    options = placed.options.on_fargate
    settings = {
        "HEADRACE_HEALTH": str(HEALTH_PORT),
        "HEADRACE_CONCURRENCY": str(options.concurrency),
        "HEADRACE_DRAIN_SECONDS": str(options.stop_timeout - FAREWELL),
    }
    health = f"http://127.0.0.1:{HEALTH_PORT}/healthz"
    return Program(("headrace",), ("worker", placed.options.app), health, settings=settings)


def http(placed: Placed) -> Program:
    """Serves the HTTP edge of the service."""
    command = (placed.options.http, "--host", "0.0.0.0", "--port", str(HTTP_PORT))
    return Program(
        ("uvicorn",),
        (*command, "--timeout-keep-alive", str(KEPT_ALIVE)),
        f"http://127.0.0.1:{HTTP_PORT}/healthz",
        HTTP_PORT,
    )


class Task(Construct):
    """The definition of the tasks that run `program`, for arm64, as `role`.

    Their lines go to a log group that outlives them. They begin with `execution_role`, which
    gets what ECS needs for that: this image, and this log group.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        program: Program,
        placed: Placed,
        *,
        deployment: Deployment,
        role: iam.IRole,
        execution_role: iam.IRole,
    ) -> None:
        super().__init__(scope, id)
        self._placed = placed
        self._deployment = deployment
        self._options = placed.options.on_fargate
        self.log_group = logs.LogGroup(
            self, "Logs", retention=LOGS_KEPT, removal_policy=RemovalPolicy.RETAIN
        )
        excuse(self.log_group, *LOG_GROUP)
        self.definition = ecs.FargateTaskDefinition(
            self,
            "Definition",
            cpu=self._options.cpu,
            memory_limit_mib=self._options.memory,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
            task_role=role,
            execution_role=execution_role,
        )
        excuse(
            self.definition,
            Excuse(
                "AwsSolutions-ECS2",
                "Its variables are settings and names. Secrets are read from Secrets Manager.",
            ),
        )
        container = self._container(program)
        if deployment.tracing != "off":
            self._collector(container)

    def _container(self, program: Program) -> ecs.ContainerDefinition:
        container = self.definition.add_container(
            "service",
            image=service_image(self._placed, self._deployment),
            entry_point=list(program.entry_point),
            command=list(program.command),
            environment={
                "AWS_REGION": Aws.REGION,
                **program.settings,
                **variables(self._placed, self._deployment),
            },
            user=USER,
            readonly_root_filesystem=True,
            linux_parameters=self._confined("Linux"),
            stop_timeout=Duration.seconds(self._options.stop_timeout),
            health_check=_health(_asking(program.health)),
            logging=self._logging("service"),
            port_mappings=[ecs.PortMapping(container_port=program.port)] if program.port else None,
        )
        # A volume, as Fargate gives no other place. It has the owner and the mode of the same
        # folder in the image, which the Dockerfile declares as one.
        self.definition.add_volume(name="tmp")
        container.add_mount_points(
            ecs.MountPoint(source_volume="tmp", container_path="/tmp", read_only=False)
        )
        return container

    def _collector(self, container: ecs.ContainerDefinition) -> None:
        """Not essential: without it traces are lost, and nothing else."""
        collector = self.definition.add_container(
            "collector",
            image=collector_image(self),
            essential=False,
            environment={
                "AWS_REGION": Aws.REGION,
                "AOT_CONFIG_CONTENT": json.dumps(collecting(self._deployment.tracing)),
            },
            user=USER,
            readonly_root_filesystem=True,
            linux_parameters=self._confined("CollectorLinux"),
            memory_reservation_mib=COLLECTOR_MEMORY,
            stop_timeout=COLLECTOR_STOPS,
            health_check=_health(["CMD", "/healthcheck"]),
            logging=self._logging("collector"),
        )
        # ECS stops containers in the opposite order, so it gets what the last handlers traced.
        container.add_container_dependencies(
            ecs.ContainerDependency(
                container=collector, condition=ecs.ContainerDependencyCondition.START
            )
        )

    def _confined(self, id: str) -> ecs.LinuxParameters:
        linux = ecs.LinuxParameters(self, id, init_process_enabled=True)
        linux.drop_capabilities(ecs.Capability.ALL)
        return linux

    def _logging(self, prefix: str) -> ecs.LogDriver:
        return ecs.LogDrivers.aws_logs(
            stream_prefix=prefix,
            log_group=self.log_group,
            # Handlers do not wait for CloudWatch; what does not fit meanwhile is lost.
            mode=ecs.AwsLogDriverMode.NON_BLOCKING,
        )


# --- health ------------------------------------------------------------------------------


def _asking(url: str) -> list[str]:
    """By Python, which is there: an image has no more programs than it needs."""
    return ["CMD", "python", "-c", f"import urllib.request as r; r.urlopen('{url}', timeout=3)"]


def _health(command: Sequence[str]) -> ecs.HealthCheck:
    """A quarter of a processor needs seconds to begin."""
    return ecs.HealthCheck(
        command=list(command),
        interval=Duration.seconds(15),
        timeout=Duration.seconds(5),
        retries=3,
        start_period=Duration.seconds(60),
    )


# --- traces ------------------------------------------------------------------------------

COLLECTOR_MEMORY: Final = 128
"""In MB, of those of the task."""
COLLECTOR_STOPS: Final = Duration.seconds(10)
"""It begins to stop when the worker has: where Spot takes a task back, both have two minutes."""
TRACING_ACTIONS: Final = (
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTraceSegments",
)
"""The collector sends, and asks on behalf of X-Ray's SDK what to sample."""

_RECEIVERS: Final[Mapping[str, Mapping[str, object]]] = {
    "xray": {"awsxray": {"endpoint": "127.0.0.1:2000", "transport": "udp"}},
    "otel": {"otlp": {"protocols": {"grpc": {"endpoint": "127.0.0.1:4317"}}}},
}


def collecting(tracing: str) -> dict[str, object]:
    """The collector's configuration: it takes what `tracing` sends, from this task alone, and
    gives it to X-Ray."""
    receivers = _RECEIVERS[tracing]
    return {
        "extensions": {"health_check": {"endpoint": "127.0.0.1:13133"}},
        "receivers": receivers,
        "processors": {"batch": {"timeout": "1s", "send_batch_size": 50}},
        "exporters": {"awsxray": {}},
        "service": {
            "extensions": ["health_check"],
            "pipelines": {
                "traces": {
                    "receivers": sorted(receivers),
                    "processors": ["batch"],
                    "exporters": ["awsxray"],
                }
            },
        },
    }
