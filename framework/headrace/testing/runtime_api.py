"""Lambda on this machine: its Runtime API, and the runtime's own client in a process.

    async with lambda_runtime("services.inventory.lambda_handler.handler") as function:
        answer = await function.invoke(sqs_event(queue_arn, *deliveries))

The process runs `python -m awslambdaric`, which is what Lambda's Python runtimes run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import sysconfig
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from headrace.errors import HeadraceError, Refused
from headrace.limits import MIB
from headrace.ports import Attribute, Delivery

HOST: Final = "127.0.0.1"
REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"

PAYLOAD_BYTES: Final = 6 * MIB
"""The event of one synchronous invocation at most (Lambda's quota page)."""

_VERSION: Final = "2018-06-01"
_INIT_SECONDS: Final = 60.0
"""Lambda allows 10; a busy test machine may need more to import the same code."""
_GRACE_SECONDS: Final = 5.0
_LOG_LINES: Final = 20
_HEADER_BYTES: Final = 2 * MIB
"""The client sends the frames of an exception in a header, up to 1 MiB of them."""


class FunctionError(HeadraceError):
    """The function raised, ended, or ran out of time instead of answering.

    `error_type` is the name of the exception's class, or Lambda's own word for it
    (`Sandbox.Timedout`, `Runtime.ExitError`, `Runtime.ImportModuleError`).
    """

    def __init__(
        self, error_type: str, error_message: str, *, stack_trace: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{error_type}: {error_message}")
        self.error_type = error_type
        self.error_message = error_message
        self.stack_trace = tuple(stack_trace)


class LambdaFunction:
    """A function with one execution environment, in which invocations follow each other.

    An environment that ended, or was ended at a timeout, is replaced at the next invocation,
    as Lambda does. Make one with `lambda_runtime`.
    """

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self._command = command
        self._environ = environ
        self._turn = asyncio.Lock()
        self._environment: _Environment | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="headrace-lambda-")
        self._log = Path(self._scratch.name, "log")
        self._log.touch()

    async def invoke(
        self,
        event: Any,
        *,
        timeout: timedelta = timedelta(seconds=30),  # noqa: ASYNC109 - a setting of the function
    ) -> Any:
        """What the function answers to an event; both are JSON.

        `timeout` is the function's own: it gives the deadline in its context, and when it has
        passed, the environment is killed. Raises `FunctionError`, and `Refused` for an event
        that Lambda would not take.
        """
        payload = json.dumps(event).encode()
        if len(payload) > PAYLOAD_BYTES:
            raise Refused(
                f"The event has {len(payload):,} bytes: Lambda takes {PAYLOAD_BYTES:,}. Invoke "
                "with a smaller batch.",
                operation="Invoke",
                code="RequestEntityTooLargeException",
            )
        async with self._turn:
            environment = await self._ready()
            return json.loads(await environment.run(_invocation(payload, self.arn, timeout)))

    def printed(self) -> str:
        """Everything the function and its runtime wrote to stdout and stderr so far."""
        return self._log.read_text(errors="replace")

    async def close(self) -> None:
        """End the environment, by the id of its process."""
        if self._environment is not None:
            await self._environment.close()
        self._scratch.cleanup()

    async def _ready(self) -> _Environment:
        if self._environment is not None and self._environment.ended:
            await self._environment.close()
            self._environment = None
        if self._environment is None:
            self._environment = await _Environment.start(self._command, self._environ, self._log)
        return self._environment


@asynccontextmanager
async def lambda_runtime(
    handler: str,
    *,
    environment: Mapping[str, str] | None = None,
    python: str | os.PathLike[str] = sys.executable,
    name: str = "function",
) -> AsyncIterator[LambdaFunction]:
    """A function whose entry point is `handler`, as `module.name`; its process ends with the
    block.

    It inherits this process's environment and imports what this one can, but packages are those
    of `python`, which needs awslambdaric. `environment` is the function's own configuration.
    """
    command = [os.fspath(python), "-m", "awslambdaric", handler]
    environ = {**os.environ, **_lambda_variables(handler, name), **(environment or {})}
    function = LambdaFunction(name, command, environ)
    try:
        yield function
    finally:
        await function.close()


def sqs_event(queue_arn: str, *messages: Delivery | str) -> dict[str, Any]:
    """What an event source mapping makes of messages it received, or of bodies.

    A message of a queue keeps its receipt handle, so the function can settle it.
    """
    queue = queue_arn.rpartition(":")[2]
    received = [_received(m, queue) if isinstance(m, str) else m for m in messages]
    return {"Records": [_record(delivery, queue_arn) for delivery in received]}


# --- one execution environment -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Invocation:
    """`taken` is set when the runtime has fetched it, `answer` by what it posts."""

    id: str
    payload: bytes
    arn: str
    timeout: timedelta
    taken: asyncio.Future[None]
    answer: asyncio.Future[bytes]

    def headers(self) -> dict[str, str]:
        now = time.time()
        deadline = now + self.timeout.total_seconds()
        root, parent = f"1-{int(now):08x}-{uuid4().hex[:24]}", uuid4().hex[:16]
        return {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": self.id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.arn,
            "Lambda-Runtime-Trace-Id": f"Root={root};Parent={parent};Sampled=0",
        }


def _invocation(payload: bytes, arn: str, timeout: timedelta) -> _Invocation:
    loop = asyncio.get_running_loop()
    return _Invocation(
        str(uuid4()), payload, arn, timeout, loop.create_future(), loop.create_future()
    )


class _Environment:
    """A process, and the server it talks to."""

    def __init__(self, api: _RuntimeApi, process: asyncio.subprocess.Process, log: Path) -> None:
        self._api = api
        self._process = process
        self._log = log
        self._end = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(
        cls, command: Sequence[str], environ: Mapping[str, str], log: Path
    ) -> _Environment:
        api = _RuntimeApi()
        address = await api.listen()
        try:
            with _appending(log) as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**environ, "AWS_LAMBDA_RUNTIME_API": address},
                )
        except BaseException:
            await api.close()
            raise
        return cls(api, process, log)

    @property
    def ended(self) -> bool:
        return self._end.done()

    async def run(self, invocation: _Invocation) -> bytes:
        self._api.offer(invocation)
        await self._until(invocation.taken, _INIT_SECONDS)
        await self._until(invocation.answer, invocation.timeout.total_seconds())
        return await invocation.answer

    async def close(self) -> None:
        if not self.ended:
            with suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait([self._end], timeout=_GRACE_SECONDS)
        await self._kill()
        await self._api.close()

    async def _until(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Raises `FunctionError` if the process ends, or the time does, before the future."""
        await asyncio.wait(
            [future, self._end], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if future.done():
            future.result()
        elif self._api.init_error is not None:
            raise self._api.init_error
        elif self._end.done():
            raise FunctionError(
                "Runtime.ExitError",
                f"The runtime ended with status {self._end.result()} before it answered. The last "
                f"it printed:\n{_tail(self._log)}",
            )
        else:
            await self._kill()
            raise FunctionError("Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds")

    async def _kill(self) -> None:
        if not self.ended:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._end


# --- the Runtime API -----------------------------------------------------------------------


class _Request(NamedTuple):
    method: str
    path: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Response:
    status: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def __bytes__(self) -> bytes:
        headers = {**self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status}\r\n{head}\r\n".encode() + self.body


_ACCEPTED: Final = _Response("202 Accepted", b'{"status":"OK"}')
_NO_SUCH_ID: Final = _Response("400 Bad Request", b'{"errorType":"InvalidRequestID"}')
_NO_SUCH_PATH: Final = _Response("404 Not Found", b"{}")


class _RuntimeApi:
    """The HTTP API between Lambda and a runtime: it fetches an invocation, and posts what became
    of it ("Using the Lambda runtime API", developer guide)."""

    def __init__(self) -> None:
        self.init_error: FunctionError | None = None
        self._offered: asyncio.Queue[_Invocation] = asyncio.Queue()
        self._taken: dict[str, _Invocation] = {}
        self._connections: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """Start on a free port of the loopback interface; returns `host:port`."""
        self._server = await asyncio.start_server(self._connected, HOST, 0, limit=_HEADER_BYTES)
        return f"{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def offer(self, invocation: _Invocation) -> None:
        self._offered.put_nowait(invocation)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._converse(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One kept-alive connection, until the runtime closes it."""
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    response = await self._answer(await _read(reader, writer))
                    writer.write(bytes(response))
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, request: _Request) -> _Response:
        match request:
            case _Request("GET", ("invocation", "next")):
                return await self._next()
            case _Request("POST", ("invocation", id, "response"), body):
                return self._finish(id, body)
            case _Request("POST", ("invocation", id, "error"), body):
                return self._finish(id, _error_in(body))
            case _Request("POST", ("init", "error"), body):
                self.init_error = _error_in(body)
                return _ACCEPTED
            case _:
                return _NO_SUCH_PATH

    async def _next(self) -> _Response:
        invocation = await self._offered.get()
        self._taken[invocation.id] = invocation
        invocation.taken.set_result(None)
        return _Response("200 OK", invocation.payload, invocation.headers())

    def _finish(self, id: str, result: bytes | FunctionError) -> _Response:
        invocation = self._taken.pop(id, None)
        if invocation is None:
            return _NO_SUCH_ID
        if invocation.answer.done():
            # Whoever invoked was cancelled meanwhile.
            return _ACCEPTED
        if isinstance(result, FunctionError):
            invocation.answer.set_exception(result)
        else:
            invocation.answer.set_result(result)
        return _ACCEPTED


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    version, _, *path = target.strip("/").split("/")
    return _Request(method, tuple(path) if version == _VERSION else (), body)


def _error_in(body: bytes) -> FunctionError:
    said = json.loads(body)
    return FunctionError(
        said.get("errorType", "Unknown"),
        said.get("errorMessage", ""),
        stack_trace=said.get("stackTrace") or (),
    )


# --- what the process is given ---------------------------------------------------------------


def _lambda_variables(handler: str, name: str) -> dict[str, str]:
    """What Lambda sets for a function ("Defined runtime environment variables")."""
    return {
        "_HANDLER": handler,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_REGION": REGION,
        "PYTHONPATH": os.pathsep.join(_own_paths()),
    }


def _own_paths() -> Iterator[str]:
    """Where this process finds code that is neither the interpreter's nor installed."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    for path in dict.fromkeys(Path(entry).resolve() for entry in sys.path):
        installed = {"site-packages", "dist-packages"} & set(path.parts)
        if path.is_dir() and not installed and not path.is_relative_to(stdlib):
            yield str(path)


@contextmanager
def _appending(log: Path) -> Iterator[int]:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (nothing)"


# --- SQS records -------------------------------------------------------------------------------


def _received(body: str, queue: str) -> Delivery:
    return Delivery(str(uuid4()), f"receipt-{uuid4()}", body, queue, fifo=queue.endswith(".fifo"))


def _record(delivery: Delivery, queue_arn: str) -> dict[str, Any]:
    return {
        "messageId": delivery.message_id,
        "receiptHandle": delivery.receipt_handle,
        "body": delivery.body,
        "attributes": _system_attributes(delivery),
        "messageAttributes": {
            name: _record_attribute(given) for name, given in delivery.attributes.items()
        },
        "md5OfBody": _md5(delivery.body),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def _system_attributes(delivery: Delivery) -> dict[str, str]:
    """All of them are text, numbers and times too."""
    now = int(time.time() * 1000)
    sent = now if delivery.sent_at is None else int(delivery.sent_at.timestamp() * 1000)
    attributes = {
        "ApproximateReceiveCount": str(delivery.receive_count),
        "ApproximateFirstReceiveTimestamp": str(now),
        "SenderId": ACCOUNT,
        "SentTimestamp": str(sent),
    }
    if delivery.trace_header is not None:
        attributes["AWSTraceHeader"] = delivery.trace_header
    if delivery.group_id is not None:
        attributes["MessageGroupId"] = delivery.group_id
    if delivery.fifo:
        attributes["MessageDeduplicationId"] = _md5(delivery.body)
        attributes["SequenceNumber"] = f"{sent:020d}"
    return attributes


def _record_attribute(given: Attribute) -> dict[str, Any]:
    lists: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    if isinstance(given.value, bytes):
        return {"binaryValue": b64encode(given.value).decode(), **lists, "dataType": given.type}
    return {"stringValue": given.value, **lists, "dataType": given.type}


def _md5(body: str) -> str:
    return hashlib.md5(body.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()
