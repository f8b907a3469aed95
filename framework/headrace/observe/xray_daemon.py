"""The way to X-Ray's daemon: one UDP datagram for each document, and none waits for anything."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import weakref
from collections import deque
from typing import Final

logger = logging.getLogger(__name__)

LARGEST: Final = 64_000
"""Bytes of one document. X-Ray takes 64 kB, and UDP over IPv4 carries 65,507 with the header."""

WAITING: Final = 1_000
"""Datagrams that are kept while the socket's buffer is full."""

_HEADER: Final = b'{"format":"json","version":1}\n'
_BUFFER: Final = 1 << 20
_PAUSE: Final = 0.005


class Daemon:
    """Where segments are sent to. `lost` counts those of which it is known that they did not get
    there: UDP says so only if nobody listens on this machine, or if this one is in the way."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._again: asyncio.AbstractEventLoop | None = None
        self._asking: threading.Thread | None = None
        self._is_missed = False
        self._socket: socket.socket | None = None
        self._connect()

    def send(self, document: bytes) -> None:
        """Raises nothing and does not wait, on whatever thread."""
        datagram = _HEADER + document
        if self._waiting:
            self.flush()
        if not self._waiting and self._is_gone(datagram):
            return
        if len(self._waiting) >= WAITING:
            self._lose("they come faster than they can be sent")
            return
        self._waiting.append(datagram)
        self._try_again_soon()

    def flush(self) -> None:
        """Send what waits, as far as that is possible at once."""
        if self._socket is None and (self._asking is None or not self._asking.is_alive()):
            # A name is looked up by a call that waits.
            self._asking = threading.Thread(target=self._connect, daemon=True)
            self._asking.start()
        with self._lock:
            while self._waiting and self._is_gone(self._waiting[0]):
                self._waiting.popleft()
        if self._waiting:
            self._try_again_soon()

    def move(self, host: str, port: int) -> None:
        """Send elsewhere from now on."""
        self.close()
        self.host, self.port = host, port
        self._connect()

    def close(self) -> None:
        """Send what can be sent at once, and nothing more."""
        with self._lock:
            before, self._socket = self._socket, None
        if before is not None:
            before.close()

    def _connect(self) -> None:
        try:
            [(family, kind, _, _, address), *_] = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_DGRAM
            )
            opened = socket.socket(family, kind)
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            # A socket that is connected is told if nobody listens, and saves the kernel a lookup.
            opened.connect(address)
        except OSError as error:
            self._say_not_found(error)
            return
        weakref.finalize(self, opened.close)
        self._socket = opened

    def _say_not_found(self, error: OSError) -> None:
        if self._is_missed:
            return
        self._is_missed = True
        logger.warning(
            "X-Ray's daemon is not found at %s:%d (%s): segments wait, and are lost if it stays "
            "so. Set AWS_XRAY_DAEMON_ADDRESS to where it is. This is said once.",
            self.host,
            self.port,
            error,
        )

    def _is_gone(self, datagram: bytes) -> bool:
        """Whether nothing more is to be done about it: it is sent, or lost."""
        if self._socket is None:
            return False
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            return False
        except ConnectionRefusedError:
            # It is the one before that nobody took; this one was not sent.
            self._lose("nobody listens there")
            return self._is_gone_anyway(datagram)
        except OSError as error:
            self._lose(str(error))
        return True

    def _is_gone_anyway(self, datagram: bytes) -> bool:
        try:
            if self._socket is not None:
                self._socket.send(datagram)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(str(error))
        return True

    def _try_again_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # in a thread: the next send or flush does it
        if self._again is not loop and self._socket is not None:
            self._again = loop
            loop.call_later(_PAUSE, self._on_time)

    def _on_time(self) -> None:
        self._again = None
        self.flush()

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self.lost == 1:
            logger.warning(
                "X-Ray segments are lost on the way to %s:%d: %s. Start the daemon there, or set "
                "AWS_XRAY_DAEMON_ADDRESS. This is said once.",
                self.host,
                self.port,
                why,
            )
