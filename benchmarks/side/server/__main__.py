"""The instant server as a process: `python -m benchmarks.side.server`.

It writes its address, as `http://127.0.0.1:41234`, as the first line, and serves until it is ended
by SIGTERM or SIGINT; with --tied also when its standard input ends, so with whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys

from benchmarks.side.server.app import App
from benchmarks.side.server.http import Connection


async def serve(port: int, *, tied: bool) -> None:
    loop = asyncio.get_running_loop()
    app, ended = App(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if tied:
        loop.add_reader(sys.stdin.fileno(), end_with_input, ended)
    server = await loop.create_server(lambda: Connection(app.answer), "127.0.0.1", port)
    app.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(app.endpoint, flush=True)
    await ended.wait()
    # Not wait_closed(), which waits for clients that keep their connections.
    server.close()


def end_with_input(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        ended.set()


def main() -> None:
    parser = argparse.ArgumentParser(description="The instant server.")
    parser.add_argument("--port", type=int, default=0, help="a free one, if not said")
    parser.add_argument("--tied", action="store_true", help="end with the standard input")
    options = parser.parse_args()
    # What it keeps has no cycles; looking for them again and again would be noticed.
    gc.set_threshold(100_000, 50, 50)
    # On asyncio's own loop, so that it is the same server wherever it runs.
    asyncio.run(serve(options.port, tied=options.tied))


if __name__ == "__main__":
    main()
