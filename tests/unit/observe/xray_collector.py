"""X-Ray's daemon, as far as a test needs one: it takes what is sent, and gives it back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Final, TypeAlias

from aws_xray_sdk.core import xray_recorder  # type: ignore[import-untyped]  # ships no types

Document: TypeAlias = dict[str, Any]

HEADER: Final = b'{"format":"json","version":1}\n'
_LARGEST: Final = 65_535
_ALL_READ: Final = b"all read"
_PATIENCE: Final = 20.0


class Collector:
    """Reads datagrams on a thread of its own, as a daemon does in a process of its own."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.bind(("127.0.0.1", 0))
        self._datagrams: list[bytes] = []
        self._any = Event()
        self._marks: SimpleQueue[bytes] = SimpleQueue()
        self._reading = Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def sizes(self) -> list[int]:
        """The bytes of each datagram that was sent until now."""
        self._mark(_ALL_READ)
        return [len(datagram) for datagram in self._datagrams]

    def documents(self) -> list[Document]:
        """All segments, and subsegments sent by themselves, that were sent until now."""
        self._mark(_ALL_READ)
        assert all(datagram.startswith(HEADER) for datagram in self._datagrams)
        return [json.loads(datagram.removeprefix(HEADER)) for datagram in self._datagrams]

    def only(self) -> Document:
        """The one document that was sent."""
        [document] = self.documents()
        return document

    def wait(self) -> bool:
        """Whether anything was sent, as soon as it is, or after a long time."""
        return self._any.wait(_PATIENCE)

    def close(self) -> None:
        self._mark(b"")
        self._reading.join()
        self._socket.close()

    def _mark(self, mark: bytes) -> None:
        """Datagrams of one machine keep their order, so what was sent before it is read then."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(mark, self._socket.getsockname())
        assert self._marks.get(timeout=_PATIENCE) == mark

    def _read(self) -> None:
        while True:
            datagram = self._socket.recv(_LARGEST)
            if datagram in (_ALL_READ, b""):
                self._marks.put(datagram)
            else:
                self._datagrams.append(datagram)
                self._any.set()
            if not datagram:
                return


@contextmanager
def recorder_restored() -> Iterator[None]:
    """The SDK's recorder is one for the process: it is as it was before, after the block."""
    names = ("context", "emitter", "sampler", "sampling")
    before = {name: getattr(xray_recorder, name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(xray_recorder, name, value)


def subsegments(document: Document) -> list[Document]:
    found: list[Document] = document.get("subsegments", [])
    return found


def named(document: Document, name: str) -> Document:
    """The one subsegment of this name, wherever it hangs."""
    [found] = [one for one in walk(document) if one["name"] == name]
    return found


def walk(document: Document) -> Iterator[Document]:
    """All that hang on it, at whatever depth."""
    for child in subsegments(document):
        yield child
        yield from walk(child)
