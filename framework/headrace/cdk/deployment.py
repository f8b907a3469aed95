"""The one file that says where services run: `deploy.toml`.

    system = "shop"
    namespace = "shop"

    [services.inventory]
    app = "services.inventory.app:inventory"
    host = "lambda"

Queues, rules, tables and permissions are not in it: the code of the services says those.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace.cli.loading import load_services
from headrace.errors import ConfigurationError
from headrace.service import Service
from headrace.topology.check import VISIBILITY_PER_TIMEOUT
from headrace.topology.derive import topology
from headrace.topology.model import Topology

NAME: Final = r"[a-z][a-z0-9-]{0,31}"
SHORTEST_NAME: Final = 64
"""Characters of an EventBridge rule, an IAM role, a Lambda function or a schedule (their API
references)."""
QUEUE_NAME: Final = 80
"""Characters of an SQS queue."""


class Placement(StrEnum):
    """Where a service runs. `BOTH` is for a move: either host may take any message, as an effect
    happens once whoever brings it about."""

    LAMBDA = "lambda"
    FARGATE = "fargate"
    BOTH = "both"

    @property
    def on_lambda(self) -> bool:
        return self is not Placement.FARGATE

    @property
    def on_fargate(self) -> bool:
        return self is not Placement.LAMBDA


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LambdaOptions(_Options):
    """The functions of one service."""

    handler: str = ""
    """`module.attribute` of what Lambda calls with a batch; `lambda_handler.handler` beside the
    module of `app` by default."""
    relay: str = ""
    """The same of the relay, where the service publishes outside of handlers."""
    http: str = ""
    """The same of the HTTP edge, where the service has one."""
    memory: Annotated[int, Field(ge=128, le=10_240)] = 512
    """In MB. Lambda gives processor time in proportion: a whole one at 1,769 MB."""
    timeout: Annotated[int, Field(ge=1, le=900)] = 10
    """Of an invocation, in seconds. The visibility of the queue must be six times that, and the
    window more."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Messages of an invocation at most; more than 10 need a window."""
    window: Annotated[int, Field(ge=0, le=300)] = 0
    """Seconds to wait for a full batch."""
    max_concurrency: Annotated[int, Field(ge=2, le=1_000)] | None = None
    """Invocations at a time that one queue may cause."""
    snap_start: bool = False
    """Start from a snapshot that is taken when a version is published. It costs by the hour for
    every version, and by restore."""
    requirements: tuple[str, ...] = ()
    """Locks of the packages that handlers need beyond headrace's, from the folder of the file."""
    models: tuple[str, ...] = ()
    """The service models of botocore that handlers use beyond headrace's own, such as `s3`."""


class FargateOptions(_Options):
    """The tasks of one service."""

    cpu: Annotated[int, Field(ge=256, le=16_384)] = 256
    """In units of a 1,024th of a processor."""
    memory: Annotated[int, Field(ge=512, le=122_880)] = 512
    """In MB."""
    least: Annotated[int, Field(ge=0)] = 1
    """Tasks there are always; with 0 nobody is there until the backlog has been seen."""
    most: Annotated[int, Field(ge=1)] = 10
    """Tasks there are at most."""
    spot: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of tasks beyond `least` that run on Spot."""
    seconds_per_message: Annotated[float, Field(gt=0)] = 0.05
    """How long one message takes on average, as measured."""
    latency: Annotated[float, Field(gt=0)] = 10
    """How long a message may wait, in seconds, before there are more tasks."""
    concurrency: Annotated[int, Field(ge=1)] = 10
    """Messages that a task handles at a time: `HEADRACE_CONCURRENCY`."""
    certificate: str = ""
    """The ARN of a certificate in ACM, with which the HTTP edge speaks HTTPS."""
    stop_timeout: Annotated[int, Field(ge=5, le=120)] = 60
    """Seconds between SIGTERM and SIGKILL. Running handlers get 5 s less."""


class ServiceOptions(_Options):
    """One service: its code, its place and what it needs to know there."""

    app: str
    """`module:attribute` of its `Service`."""
    host: Placement
    http: str = ""
    """`module:attribute` of its ASGI application, if it has one."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables of its processes. No secrets: whoever may look at a function or a task sees
    them."""
    secrets: tuple[str, ...] = ()
    """What it reads with `headrace.aws.secrets.secret(NAME)`: each stands in Secrets Manager as
    `<namespace>/<service>/<NAME>`."""
    on_lambda: LambdaOptions = Field(default_factory=LambdaOptions, alias="lambda")
    on_fargate: FargateOptions = Field(default_factory=FargateOptions, alias="fargate")


class Requirements(_Options):
    """Locked packages with their hashes, from the folder of the file; of those that are needed."""

    on_lambda: str = Field("requirements/lambda.txt", alias="lambda")
    http: str = "requirements/lambda-http.txt"
    xray: str = "requirements/lambda-xray.txt"
    otel: str = "requirements/lambda-otel.txt"


class _File(_Options):
    system: Annotated[str, Field(pattern=f"^{NAME}$")]
    namespace: Annotated[str, Field(pattern=f"^{NAME}$")]
    alarms_to: str | None = None
    tracing: Annotated[str, Field(pattern="^(off|xray|otel)$")] = "off"
    python: Annotated[str, Field(pattern=r"^3\.1[1-4]$")] = "3.13"
    sources: str = ".."
    requirements: Requirements = Field(default_factory=Requirements)
    services: Annotated[Mapping[str, ServiceOptions], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Placed:
    """A service, and where it runs."""

    service: Service
    options: ServiceOptions

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def models(self) -> tuple[str, ...]:
        """The service models of botocore that its functions need beyond headrace's own."""
        own = ("secretsmanager",) if self.options.secrets else ()
        return (*self.options.on_lambda.models, *own)

    @property
    def package(self) -> str:
        """The package of its code."""
        return self.options.app.partition(":")[0].rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that a system of services is deployed from."""

    system: str
    namespace: str
    services: tuple[Placed, ...]
    root: Path
    """The folder of the file: what it names is found from there."""
    sources: Path
    """The folder from which services are imported."""
    requirements: Mapping[str, Path]
    """Locks by what they are for: `lambda`, `http`, `xray`, `otel`."""
    python: str = "3.13"
    tracing: str = "off"
    alarms_to: str | None = None

    @classmethod
    def read(
        cls, path: Path, *, namespace: str | None = None, host: Placement | None = None
    ) -> Self:
        """Read a `deploy.toml` and import the services it names.

        `namespace` is another one than the file's, as for a second stage; `host` is the place of
        all services, whatever the file says.

        Raises `ConfigurationError` with one sentence for each thing that is wrong.
        """
        file = _parsed(path)
        root = path.resolve().parent
        sources = (root / file.sources).resolve()
        if str(sources) not in sys.path:
            sys.path.insert(0, str(sources))
        placed = tuple(
            Placed(service, options if host is None else options.model_copy(update={"host": host}))
            for options in file.services.values()
            for service in load_services([options.app])
        )
        named = zip(file.services, placed, strict=True)
        stage = namespace or file.namespace
        wrong = [sentence for name, each in named for sentence in _wrong(name, each)]
        wrong += _wrong_names(stage, [each.service for each in placed])
        if wrong:
            raise ConfigurationError("\n".join(f"{path}: {sentence}" for sentence in wrong))
        locks = file.requirements.model_dump(by_alias=True)
        return cls(
            system=file.system,
            namespace=stage,
            services=placed,
            root=root,
            sources=sources,
            requirements={name: root / lock for name, lock in locks.items()},
            python=file.python,
            tracing=file.tracing,
            alarms_to=file.alarms_to,
        )

    @property
    def prefix(self) -> str:
        """How the names of all its stacks begin."""
        same = self.namespace == self.system or self.namespace.startswith(f"{self.system}-")
        return self.namespace if same else f"{self.system}-{self.namespace}"

    @property
    def metrics_namespace(self) -> str:
        """Where headrace's metrics are in CloudWatch: one for each stage."""
        return f"headrace/{self.namespace}"

    @property
    def topology(self) -> Topology:
        return topology(*(placed.service for placed in self.services))


def _parsed(path: Path) -> _File:
    try:
        return _File.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no file {path}: write one that names your services and their hosts."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from error
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentences(path, error))) from None


def _sentences(path: Path, error: ValidationError) -> Iterator[str]:
    for finding in error.errors(include_url=False):
        where = ".".join(map(str, finding["loc"]))
        yield f"{path}: {where}: {finding['msg']}."


def _wrong(name: str, placed: Placed) -> Iterator[str]:
    service, options = placed.service, placed.options
    if service.name != name:
        yield (
            f"services.{name} is the service {service.name!r}: write [services.{service.name}], as "
            "its queue and its table are named so."
        )
    if options.host.on_lambda:
        yield from _wrong_on_lambda(name, service, options.on_lambda)
    if options.host.on_fargate and options.on_fargate.least > options.on_fargate.most:
        yield f"services.{name}.fargate: least is more than most."
    if options.host is Placement.FARGATE and service.emits and not options.on_fargate.least:
        yield (
            f"services.{name}.fargate: least is 0, and what the service publishes outside of its "
            "handlers is relayed by its worker: keep one task, with least = 1."
        )


def _wrong_names(namespace: str, services: Sequence[Service]) -> Iterator[str]:
    if not re.fullmatch(NAME, namespace):
        yield (
            f"the namespace {namespace!r} cannot begin names in AWS: take up to 32 small letters, "
            "digits and hyphens, a letter first."
        )
    names = [f"{service.name}-scheduler" for service in services]
    names += [rule.name for rule in topology(*services).rules]
    for name in names:
        if len(physical := f"{namespace}-{name}") > SHORTEST_NAME:
            yield (
                f"the name {physical!r} has {len(physical)} characters, and rules, roles, "
                f"functions and schedules have {SHORTEST_NAME} at most: shorten the namespace, or "
                "the service."
            )
    for queue in topology(*services).queues:
        if len(physical := f"{namespace}-{queue.name}") > QUEUE_NAME:
            yield (
                f"the queue name {physical!r} has {len(physical)} characters, and SQS takes "
                f"{QUEUE_NAME}: shorten the namespace, the service, or its queue=."
            )


def _wrong_on_lambda(name: str, service: Service, options: LambdaOptions) -> Iterator[str]:
    wanted = VISIBILITY_PER_TIMEOUT * options.timeout + options.window
    visible = service.queue_settings.visibility.total_seconds()
    if visible < wanted:
        yield (
            f"services.{name}.lambda: a timeout of {options.timeout} s and a window of "
            f"{options.window} s want a visibility of {wanted} s, and its queues have "
            f"{visible:g} s: lower them, or write Service(…, queues=QueueSettings("
            f"visibility=timedelta(seconds={wanted})))."
        )
    for handler in service.handlers:
        longest = handler.timeout.total_seconds() if handler.timeout else 0
        if longest >= options.timeout:
            yield (
                f"services.{name}.lambda: its handler {handler.name} may run for {longest:g} s, "
                f"and the function ends after {options.timeout} s: raise timeout."
            )
    if options.batch > 10 and options.window < 1:
        yield f"services.{name}.lambda: a batch of more than 10 needs a window of 1 s or more."
    if options.batch > 10 and any(queue.endswith(".fifo") for queue in service.queues):
        yield f"services.{name}.lambda: a FIFO queue gives batches of 10 at most."
    if options.window and any(queue.endswith(".fifo") for queue in service.queues):
        yield f"services.{name}.lambda: a FIFO queue knows no window."
