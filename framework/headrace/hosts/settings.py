"""How a host runs: options given in code or on the command line, or by the environment.

Lambda reads this at every cold start, so it imports nothing that takes time.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final, NamedTuple, Self, TypeAlias

from headrace.errors import ConfigurationError
from headrace.limits import SQS_MAX_VISIBILITY, SQS_MAX_WAIT

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
"""Where a port that is given without a host is served: for this machine, or this task, alone."""


class Address(NamedTuple):
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker runs. Raises `ConfigurationError` for values that cannot be used, all of them
    in one."""

    concurrency: int = 10
    """Deliveries handled at a time, per queue; at least 1. `HEADRACE_CONCURRENCY`."""

    prefetch: int = 0
    """Deliveries kept waiting in memory beyond those, per queue; at least 0. By default nothing
    waits hidden while another worker might take it; with prefetch, receiving overlaps with
    handling. What waits is kept hidden by the heartbeat and handed back at a stop. On a FIFO queue
    those that wait behind one of their own group do not count. `HEADRACE_PREFETCH`."""

    pollers: int | None = None
    """Receives that may be open at a time, per queue; 1 to 20. `None` is one for every ten of
    concurrency and prefetch together, and at most 10. An idle queue has one open, whatever this
    says. `HEADRACE_POLLERS`."""

    per_tenant: int | None = None
    """Of one tenant, which is a message group of a standard queue, at most so many at a time; at
    least 1. `None` is no limit. `HEADRACE_TENANT_CONCURRENCY`."""

    wait: timedelta = SQS_MAX_WAIT
    """How long a receive waits for a message, 0 to 20 s. `HEADRACE_WAIT_SECONDS`."""

    patience: timedelta = timedelta(seconds=10)
    """How much longer than `wait` an answer may take before the receive is given up and made
    again; more than 0. `HEADRACE_PATIENCE_SECONDS`."""

    visibility: timedelta | None = None
    """How long a message is hidden by a receive and by each heartbeat, 1 s to 12 h. `None` is what
    the service's `QueueSettings` say. The shorter it is, the sooner the messages of a crashed
    worker come again, and the more heartbeats are paid for. `HEADRACE_VISIBILITY_SECONDS`."""

    drain: timedelta = timedelta(seconds=25)
    """Time for running handlers after a stop; at least 0. ECS sends SIGKILL `stopTimeout` after
    SIGTERM, which is 30 s by default and 120 s at most: leave 5 s of it. `HEADRACE_DRAIN_SECONDS`.
    """

    health: Address | None = None
    """Where /healthz and /readyz are served; `None` is nowhere. As text `8080` is
    `127.0.0.1:8080`, and `0.0.0.0:8080` or `[::]:8080` is for everyone. `HEADRACE_HEALTH`."""

    scale_in_protection: bool = True
    """On ECS, protect the task from being scaled in while a handler runs for long. Of effect only
    where `ECS_AGENT_URI` is set. `HEADRACE_SCALE_IN_PROTECTION`: on or off."""

    def __post_init__(self) -> None:
        _refuse_unusable(self, WORKER)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """The settings that are `given`, by field; for the others the environment's, and for what
        it leaves unset or empty, the defaults.

        `None` or an empty text is not given, and other text is read as the environment's is.
        Raises `ConfigurationError` with one sentence for each value that cannot be used. Warns of
        a variable that looks like a misspelled one, once in a process.
        """
        warn_of_misspelled(environ)
        return cls(**_read(WORKER, environ, given))


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaSettings:
    """How a Lambda function runs. Raises `ConfigurationError` for values that cannot be used, all
    of them in one."""

    concurrency: int = 10
    """Deliveries handled at a time, per invocation; at least 1. `HEADRACE_CONCURRENCY`."""

    per_tenant: int | None = None
    """Of one tenant, which is a message group of a standard queue, at most so many at a time; at
    least 1. `None` is no limit. `HEADRACE_TENANT_CONCURRENCY`."""

    margin: timedelta = timedelta(milliseconds=500)
    """Time kept free before the function's timeout, for handing back what is not finished; more
    than 0. `HEADRACE_MARGIN_SECONDS`."""

    def __post_init__(self) -> None:
        _refuse_unusable(self, LAMBDA)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """As `WorkerSettings.from_environment`."""
        warn_of_misspelled(environ)
        return cls(**_read(LAMBDA, environ, given))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveSettings:
    """What a host tells of its work, and whom. Raises `ConfigurationError` for values that cannot
    be used, all of them in one."""

    tracing: str = "off"
    """Whom traces are sent to: `off`, `xray` (X-Ray's daemon, at `AWS_XRAY_DAEMON_ADDRESS`) or
    `otel` (the provider that the OpenTelemetry API has). `HEADRACE_TRACING`."""

    metrics: str = "off"
    """How metrics are written: `off`, or `emf`, CloudWatch's embedded metric format, to standard
    output. `HEADRACE_METRICS`."""

    metrics_namespace: str = "headrace"
    """Of these metrics in CloudWatch. `HEADRACE_METRICS_NAMESPACE`."""

    metrics_interval: timedelta = timedelta(seconds=10)
    """How often a worker writes them; more than 0. Lambda does at the end of each invocation.
    `HEADRACE_METRICS_SECONDS`."""

    logs: str = "text"
    """How log lines are written: `text`, or `json`, one object a line. `HEADRACE_LOGS`."""

    log_level: str = "INFO"
    """The least level that is written: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    `HEADRACE_LOG_LEVEL`."""

    log_payloads: bool = False
    """Log the payload of each message that is handled, without the fields that its class marks as
    sensitive. `HEADRACE_LOG_PAYLOADS`: on or off."""

    def __post_init__(self) -> None:
        _refuse_unusable(self, OBSERVE)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """As `WorkerSettings.from_environment`; but warns of nothing, as it says how to."""
        return cls(**_read(OBSERVE, environ, given))


# --- what a value may be ---------------------------------------------------------------


class Setting(NamedTuple):
    """One field: its variable, how its value is written there, and what it may be.

    `parse` raises `ValueError` or `OverflowError`. `written` and `given` complete the sentence
    "write …" for the environment, and "give …" for code.
    """

    variable: str
    parse: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    written: str
    given: str


def _whole(variable: str, least: int, most: int | None = None) -> Setting:
    def accepts(value: Any) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return least <= value and (most is None or value <= most)

    wanted = f"a whole number from {least} " + ("up" if most is None else f"to {most}")
    return Setting(variable, int, accepts, wanted, wanted)


def _duration(
    variable: str, wanted: str, least: timedelta, most: timedelta = timedelta.max
) -> Setting:
    """From `least` to `most`; `wanted` says that in words."""

    def accepts(value: Any) -> bool:
        return isinstance(value, timedelta) and least <= value <= most

    return Setting(
        variable, _seconds, accepts, f"a number of seconds, {wanted}", f"a timedelta, {wanted}"
    )


def _switch(variable: str) -> Setting:
    return Setting(
        variable, _on_or_off, lambda value: isinstance(value, bool), "on or off", "True or False"
    )


def _place(variable: str) -> Setting:
    return Setting(
        variable,
        _address,
        _is_address,
        "a port such as 8080, or with a host 0.0.0.0:8080 or [::]:8080",
        'an Address such as Address("127.0.0.1", 8080), with a port from 0 to 65535',
    )


def _choice(variable: str, *words: str, parse: Callable[[str], str] = str.lower) -> Setting:
    wanted = f"{', '.join(words[:-1])} or {words[-1]}"
    return Setting(variable, parse, lambda value: value in words, wanted, wanted)


def _name(variable: str) -> Setting:
    def accepts(value: Any) -> bool:
        return isinstance(value, str) and _NAMESPACE.fullmatch(value) is not None

    wanted = "1 to 255 letters, digits and ._-/#:"
    return Setting(variable, str, accepts, wanted, wanted)


def _seconds(text: str) -> timedelta:
    return timedelta(seconds=float(text))


def _on_or_off(text: str) -> bool:
    try:
        return _SWITCHES[text.lower()]
    except KeyError:
        raise ValueError(text) from None


_SWITCHES: Final = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon:
        return Address(LOOPBACK, int(port))
    bracketed = host.startswith("[") and host.endswith("]")
    # Without brackets nobody can tell the port of an IPv6 address from its end.
    if not bracketed and ":" in host:
        raise ValueError(text)
    return Address(host[1:-1] if bracketed else host, int(port))


def _is_address(value: Any) -> bool:
    return (
        isinstance(value, Address)
        and isinstance(value.port, int)
        and 0 <= value.port <= 65_535
        and bool(value.host)
        and not any(c.isspace() or c in "/[]" for c in value.host)
    )


_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._/#:-]{1,255}")
_NOTHING: Final = timedelta(0)
_MORE_THAN_NOTHING: Final = timedelta.resolution

WORKER: Final[Mapping[str, Setting]] = {
    "concurrency": _whole("HEADRACE_CONCURRENCY", 1),
    "prefetch": _whole("HEADRACE_PREFETCH", 0),
    "pollers": _whole("HEADRACE_POLLERS", 1, 20),
    "per_tenant": _whole("HEADRACE_TENANT_CONCURRENCY", 1),
    "wait": _duration("HEADRACE_WAIT_SECONDS", "0 to 20", _NOTHING, SQS_MAX_WAIT),
    "patience": _duration("HEADRACE_PATIENCE_SECONDS", "more than 0", _MORE_THAN_NOTHING),
    "visibility": _duration(
        "HEADRACE_VISIBILITY_SECONDS",
        "1 to 43200, which is 12 hours",
        timedelta(seconds=1),
        SQS_MAX_VISIBILITY,
    ),
    "drain": _duration("HEADRACE_DRAIN_SECONDS", "0 or more", _NOTHING),
    "health": _place("HEADRACE_HEALTH"),
    "scale_in_protection": _switch("HEADRACE_SCALE_IN_PROTECTION"),
}
"""The fields of `WorkerSettings`."""

LAMBDA: Final[Mapping[str, Setting]] = {
    "concurrency": _whole("HEADRACE_CONCURRENCY", 1),
    "per_tenant": _whole("HEADRACE_TENANT_CONCURRENCY", 1),
    "margin": _duration("HEADRACE_MARGIN_SECONDS", "more than 0", _MORE_THAN_NOTHING),
}
"""The fields of `LambdaSettings`."""

OBSERVE: Final[Mapping[str, Setting]] = {
    "tracing": _choice("HEADRACE_TRACING", "off", "xray", "otel"),
    "metrics": _choice("HEADRACE_METRICS", "off", "emf"),
    "metrics_namespace": _name("HEADRACE_METRICS_NAMESPACE"),
    "metrics_interval": _duration("HEADRACE_METRICS_SECONDS", "more than 0", _MORE_THAN_NOTHING),
    "logs": _choice("HEADRACE_LOGS", "text", "json"),
    "log_level": _choice(
        "HEADRACE_LOG_LEVEL", "DEBUG", "INFO", "WARNING", "ERROR", parse=str.upper
    ),
    "log_payloads": _switch("HEADRACE_LOG_PAYLOADS"),
}
"""The fields of `ObserveSettings`."""

_READ_ELSEWHERE: Final = (
    "HEADRACE_AWS_PORT",
    "HEADRACE_BUS",
    "HEADRACE_DYNOXIDE",
    "HEADRACE_HTTP_PORT",
    "HEADRACE_LOCALSTACK_PYTHON",
    "HEADRACE_NAMESPACE",
    "HEADRACE_OTHER_PYTHONS",
    "HEADRACE_SCHEDULER_ROLE_ARN",
)

VARIABLES: Final = frozenset(
    [
        *_READ_ELSEWHERE,
        *(s.variable for s in [*WORKER.values(), *LAMBDA.values(), *OBSERVE.values()]),
    ]
)
"""Every variable that begins with `HEADRACE_` and means something, here or elsewhere."""


Settings: TypeAlias = WorkerSettings | LambdaSettings | ObserveSettings


# --- reading ---------------------------------------------------------------------------


def _read(
    settings: Mapping[str, Setting], environ: Mapping[str, str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of the fields that are given, here or there."""
    values = {name: value for name, value in given.items() if value is not None and value != ""}
    wrong = []
    for name, setting in settings.items():
        text = environ.get(setting.variable, "").strip()
        if name not in values and not text:
            continue
        called = f"{name} ({setting.variable})" if name in values else setting.variable
        value = values.get(name, text)
        if isinstance(value, str):
            value = _parsed(setting, value)
        if setting.accepts(value):
            values[name] = value
        else:
            shown = _shown(values.get(name, text))
            wrong.append(f"{called} is {shown}: write {setting.written}.")
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return values


def _parsed(setting: Setting, text: str) -> Any:
    """The value, or the text itself, which no setting accepts."""
    try:
        return setting.parse(text.strip())
    except (ValueError, OverflowError):
        return text


def _refuse_unusable(chosen: Settings, settings: Mapping[str, Setting]) -> None:
    wrong = [
        f"{name} is {_shown(value)}: give {settings[name].given}."
        for name, value in _chosen(chosen)
        if not settings[name].accepts(value)
    ]
    if wrong:
        raise ConfigurationError("\n".join(wrong))


def _chosen(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Every field that has not its default."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is not field.default:
            yield field.name, value


def _shown(value: Any) -> str:
    return f"{value.total_seconds():g} s" if isinstance(value, timedelta) else repr(value)


_warned: Final[set[str]] = set()


def warn_of_misspelled(environ: Mapping[str, str] = os.environ) -> None:
    """Say in the log which variables look like misspelled ones of headrace: of each once in a
    process, however many settings are read there."""
    for name in environ:
        if not name.startswith("HEADRACE_") or name in VARIABLES or name in _warned:
            continue
        if close := _close_to(name):
            _warned.add(name)
            logger.warning(
                "The variable %s means nothing to headrace: did you mean %s?", name, close
            )


def _close_to(name: str) -> str | None:
    """The known variable that was probably meant. What all of them begin with makes none close."""
    from difflib import get_close_matches

    known = sorted(variable.removeprefix("HEADRACE_") for variable in VARIABLES)
    rest = name.removeprefix("HEADRACE_")
    longer = [variable for variable in known if variable.startswith(f"{rest}_")]
    found = get_close_matches(rest, known, n=1, cutoff=0.75) or longer
    return f"HEADRACE_{found[0]}" if found else None
