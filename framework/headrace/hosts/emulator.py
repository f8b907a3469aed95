"""Emulators of AWS as subprocesses: on 127.0.0.1, on a free port, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headrace.errors import ConfigurationError

HOST: Final = "127.0.0.1"
ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"

_HERE: Final = Path(__file__).parent
_HEALTH: Final = "/_localstack/health"
_POLL_SECONDS: Final = 0.02
_GRACE_SECONDS: Final = 5.0
_MINISTACK_GRACE_SECONDS: Final = 0.3
"""It has nothing to save, and would wait three seconds for connections that are idle."""
_LOG_LINES: Final = 20
# Settings of this process that would break another: endpoints would lead an emulator back to
# itself, and the rest is for this interpreter and its packages.
_NOT_INHERITED: Final = (
    "AWS_ENDPOINT_URL",
    "COVERAGE_PROCESS_",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONWARNINGS",
    "VIRTUAL_ENV",
)


@asynccontextmanager
async def ministack(*, port: int | None = None, log: Path | None = None) -> AsyncIterator[str]:
    """SQS, EventBridge, DynamoDB and more in one process that forgets everything at its end.

    Yields the endpoint URL. `log` takes what the emulator prints. Raises `ConfigurationError`
    when ministack is not installed, or does not come up.
    """
    if find_spec("ministack") is None:
        raise ConfigurationError(
            "ministack is not installed: run `pip install 'headrace[local]'`, "
            "or name another emulator with AWS_ENDPOINT_URL."
        )
    port = free_port(port)
    settings = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
    }
    command = [sys.executable, "-m", "ministack"]
    grace = _MINISTACK_GRACE_SECONDS
    async with _running(
        "ministack", command, settings, port, _HEALTH, log, seconds=20, grace=grace
    ) as url:
        yield url


@asynccontextmanager
async def dynoxide(
    *,
    binary: Path | None = None,
    db_path: Path | None = None,
    port: int | None = None,
    log: Path | None = None,
) -> AsyncIterator[str]:
    """A second DynamoDB, the most faithful one; what it holds stays in `db_path`, if given.

    Yields the endpoint URL. `binary` is HEADRACE_DYNOXIDE's, or `dynoxide` on the PATH. Raises
    `ConfigurationError` when there is none, or when it does not come up.
    """
    found = binary or os.environ.get("HEADRACE_DYNOXIDE") or shutil.which("dynoxide")
    if found is None:
        raise ConfigurationError(
            "There is no dynoxide: install the npm package for this platform, such as "
            "@dynoxide/linux-x64, and set HEADRACE_DYNOXIDE to the binary in it."
        )
    port = free_port(port)
    command = [str(found), "serve", "--host", HOST, "--port", str(port)]
    if db_path is not None:
        command += ["--db-path", str(db_path)]
    async with _running("dynoxide", command, {}, port, "/", log, seconds=10) as url:
        yield url


@asynccontextmanager
async def localstack(
    *,
    python: Path | None = None,
    volume_dir: Path | None = None,
    port: int | None = None,
    log: Path | None = None,
) -> AsyncIterator[str]:
    """LocalStack in host mode, without Docker: SQS and EventBridge, but neither DynamoDB nor
    Lambda.

    Yields the endpoint URL. `python` is the interpreter that has `localstack-core[runtime]`, by
    default HEADRACE_LOCALSTACK_PYTHON's. Raises `ConfigurationError` when there is none, or when
    it does not come up.
    """
    found = python or os.environ.get("HEADRACE_LOCALSTACK_PYTHON")
    if not found:
        raise ConfigurationError(
            "There is no LocalStack: install localstack-core[runtime] in an environment of its "
            "own, and set HEADRACE_LOCALSTACK_PYTHON to the python of that environment."
        )
    port = free_port(port)
    with tempfile.TemporaryDirectory(prefix="headrace-localstack-") as scratch:
        settings = localstack_settings(port, volume_dir or Path(scratch))
        command = [str(found), str(_HERE / "_localstack_loopback.py")]
        async with _running("LocalStack", command, settings, port, _HEALTH, log, seconds=90) as url:
            yield url


def localstack_settings(port: int, volume_dir: Path) -> dict[str, str]:
    """What LocalStack reads from its environment. Queue URLs name the loopback address, because
    the host name LocalStack prefers is one that needs its own DNS."""
    return {
        "GATEWAY_LISTEN": f"{HOST}:{port}",
        "LOCALSTACK_HOST": f"{HOST}:{port}",
        "LOCALSTACK_VOLUME_DIR": str(volume_dir),
        "SQS_ENDPOINT_STRATEGY": "path",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
    }


def endpoints_environment(endpoint: str, *, dynamodb: str | None = None) -> dict[str, str]:
    """The variables that point any AWS client at `endpoint`, and DynamoDB's at `dynamodb`."""
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    if dynamodb is not None:
        variables["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb
        variables["AWS_ENDPOINT_URL_DYNAMODB_STREAMS"] = dynamodb
    return variables


def free_port(wanted: int | None = None) -> int:
    """A port on the loopback interface that nobody listens on at this moment.

    Raises `ConfigurationError` when `wanted` is taken: whoever has it would answer the health
    check in the emulator's stead.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise ConfigurationError(
                f"Port {wanted} cannot be used ({error.strerror}): give another, or none to have "
                "a free one chosen."
            ) from error
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _running(
    name: str,
    command: Sequence[str],
    settings: Mapping[str, str],
    port: int,
    health: str,
    log: Path | None,
    *,
    seconds: float,
    grace: float = _GRACE_SECONDS,
) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="headrace-emulator-") as scratch:
        printed = log or Path(scratch, "log")
        # Pid files and the like go with the directory.
        environ = {**_inherited(), "TMPDIR": scratch, **settings}
        process = await _spawn(command, environ, printed)
        try:
            await _await_health(name, process, port, health, printed, seconds)
            yield f"http://{HOST}:{port}"
        finally:
            await _end(process, grace)


def _inherited() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}


async def _spawn(
    command: Sequence[str], environ: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    tied = [sys.executable, "-I", str(_HERE / "_tied.py"), str(os.getpid())]
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *tied,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            # Ctrl-C goes to the whole foreground group: the emulator has to outlive the drain.
            start_new_session=True,
        )


async def _await_health(
    name: str,
    process: asyncio.subprocess.Process,
    port: int,
    path: str,
    log: Path,
    seconds: float,
) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await _answers(port, path):
                if process.returncode is not None:
                    raise ConfigurationError(
                        f"{name} ended with status {process.returncode} instead of listening on "
                        f"port {port}. The last it printed:\n{_tail(log)}"
                    )
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise ConfigurationError(
            f"{name} does not answer on port {port} after {seconds:.0f} s. "
            f"The last it printed:\n{_tail(log)}"
        ) from None


async def _answers(port: int, path: str) -> bool:
    """Whether a GET of this path is answered with a success."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.readline()).split()[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (nothing)"
