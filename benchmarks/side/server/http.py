"""HTTP/1.1 with connections that stay open, and no more of it than AWS's clients use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias, cast

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_TARGET: Final = re.compile(rb"\r\nx-amz-target:\s*([\w.]+)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)


class Request(NamedTuple):
    path: str
    target: str
    """What AWS's JSON protocols name the operation by; empty for other requests."""
    body: bytes
    close: bool


class Response(NamedTuple):
    status: int
    body: bytes
    type: bytes = b"application/x-amz-json-1.0"


Answer: TypeAlias = Callable[[Request], Response | Awaitable[Response]]


class Connection(asyncio.Protocol):
    """One client. Its requests are answered one after the other."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._buffer = bytearray()
        self._wanted = 0
        """Bytes that a request is known to have, while they are not all there."""
        self._later: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._later is not None:
            self._later.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def _serve(self) -> None:
        while self._later is None and (request := self._next()) is not None:
            answer = self._answer(request)
            if isinstance(answer, Response):
                self._write(answer, request.close)
            else:
                self._later = asyncio.ensure_future(self._write_later(answer, request.close))

    async def _write_later(self, answer: Awaitable[Response], close: bool) -> None:
        try:
            self._write(await answer, close)
        except BaseException:
            # Without an answer the client would wait for ever.
            self._transport.abort()
            raise
        self._later = None
        self._serve()

    def _write(self, response: Response, close: bool) -> None:
        self._transport.write(
            b"HTTP/1.1 %d %b\r\nx-amzn-RequestId: 0\r\n"
            b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (
                response.status,
                b"OK" if response.status == 200 else b"Refused",
                response.type,
                len(response.body),
                response.body,
            )
        )
        if close:
            self._transport.close()

    def _next(self) -> Request | None:
        """The next request, once it is there as a whole."""
        if not self._buffer or len(self._buffer) < self._wanted:
            return None
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return None
        head = bytes(self._buffer[:end])
        length = _LENGTH.search(head)
        self._wanted = end + len(_HEAD_END) + (int(length[1]) if length else 0)
        if len(self._buffer) < self._wanted:
            return None
        body = bytes(self._buffer[end + len(_HEAD_END) : self._wanted])
        del self._buffer[: self._wanted]
        self._wanted = 0
        target = _TARGET.search(head)
        path = head.split(b" ", 2)[1].decode()
        named = target[1].decode() if target else ""
        return Request(path, named, body, _CLOSE.search(head) is not None)
