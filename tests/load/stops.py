"""SIGTERM for a worker under load, many times.

    python -m tests.load.stops [--times 100] [--together 4]

Each time `headrace worker` is started on a queue with more messages than the ten that it handles
and the ten that it lets wait. When it holds them all, it is told to stop. Then a second worker
takes what is left. One in twenty has handlers that outlast its drain. The last line sums up, and
the status is 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.load.common import Emulated, emulated
from tests.load.stop import Stop, Trial

EVERY: Final = 20
"""One in so many has handlers that outlast its drain: the second, and so on."""


async def stops(trials: Sequence[Trial], together: int, *, url: str | None = None) -> list[Stop]:
    """Stop workers, so many at a time, on the emulator at `url` or on one of its own."""
    room = asyncio.Semaphore(together)

    async def run(trial: Trial, on: Emulated) -> Stop:
        async with room:
            stop = await trial.run(on)
            _show(stop)
            if stop.wrong:
                print(trial.last_words(), flush=True)
            return stop

    async with emulated(*(trial.second for trial in trials), url=url) as on:
        return await asyncio.gather(*(run(trial, on) for trial in trials))


def _show(stop: Stop) -> None:
    cut = f", {stop.cut_short} cut short" if stop.cut_short else ""
    print(
        f"{stop.number:4}  {stop.running:2} running and {stop.waiting:2} waiting, "
        f"gone after {stop.seconds:.2f} s{cut}",
        flush=True,
    )
    for wrong in stop.wrong:
        print(f"      wrong: {wrong}", flush=True)


def conclusion(done: Sequence[Stop]) -> str:
    return (
        f"stops={len(done)} failed={sum(bool(stop.wrong) for stop in done)} "
        f"slowest_exit_s={max(stop.seconds for stop in done):.2f} "
        f"handled_twice={sum(stop.twice for stop in done)} "
        f"hidden={sum(stop.hidden for stop in done)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.stops",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=100, metavar="N")
    parser.add_argument("--together", type=int, default=4, metavar="N", help="workers at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-stops-") as folder:
        trials = [
            Trial(number, Path(folder), outlasts=number % EVERY == 1)
            for number in range(options.times)
        ]
        done = asyncio.run(stops(trials, options.together))
    waiting = [stop.waiting for stop in done]
    print(
        f"running when told to stop: {min(s.running for s in done)} to "
        f"{max(s.running for s in done)}, waiting: {min(waiting)} to {max(waiting)}, "
        f"{sum(waiting) / len(waiting):.1f} on average"
    )
    print(conclusion(done))
    return 1 if any(stop.wrong for stop in done) else 0


if __name__ == "__main__":
    sys.exit(main())
