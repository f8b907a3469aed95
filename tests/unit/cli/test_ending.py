"""A worker's process ends, whatever does not want to: real processes, as they end themselves."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

PATIENCE = 60
"""Seconds after which a process that has not ended never will."""

HEAD = """
import asyncio, logging, sys, threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from headrace.cli import ending

logging.basicConfig(format="%(levelname)s %(message)s")
for_ever = threading.Event()

def until_it_hangs(name):
    # Until the thread of this name is where it stays.
    thread = next(thread for thread in threading.enumerate() if thread.name.startswith(name))
    while sys._current_frames()[thread.ident].f_code is not threading.Condition.wait.__code__:
        pass

ending.CLOSING = timedelta(milliseconds=200)
ending.LEAVING = timedelta(milliseconds=200)
"""


def ended(script: str) -> subprocess.CompletedProcess[str]:
    """How a process ended that runs this."""
    path = [entry for entry in sys.path if entry]
    lines = [f"import sys; sys.path[:] = {path!r}", HEAD, dedent(script)]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )


def test_a_thread_that_hangs_is_left_behind() -> None:
    done = ended("""
        async def work(stop):
            threads = ThreadPoolExecutor(thread_name_prefix="plain")
            threads.submit(for_ever.wait)
            threads.submit(for_ever.wait)
            threads.shutdown(wait=False)
            until_it_hangs("plain_0")

        ending.run_until_stopped(work, timedelta(0))
        print("came to the end")
    """)

    assert (done.returncode, done.stdout) == (0, "came to the end\n")
    assert done.stderr.startswith("WARNING Threads that do not end: 2,")
    assert "plain_0 in wait (" in done.stderr


def test_a_thread_that_hangs_in_the_executor_of_the_loop_is_left_behind() -> None:
    done = ended("""
        async def work(stop):
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="default"))
            loop.run_in_executor(None, for_ever.wait)
            until_it_hangs("default_0")

        ending.run_until_stopped(work, timedelta(0))
    """)

    assert done.returncode == 0
    assert "default_0 in wait (" in done.stderr


def test_a_thread_that_hangs_does_not_hide_a_failure() -> None:
    done = ended("""
        async def work(stop):
            threading.Thread(target=for_ever.wait).start()
            raise RuntimeError("there is no queue")

        ending.run_until_stopped(work, timedelta(0))
    """)

    assert done.returncode == 1
    assert "RuntimeError: there is no queue" in done.stderr


def test_threads_that_only_wait_for_work_are_none_that_hang() -> None:
    done = ended("""
        import atexit, time

        threads = ThreadPoolExecutor()

        async def work(stop):
            await asyncio.get_running_loop().run_in_executor(threads, print, "worked")

        @atexit.register
        def note():
            time.sleep(3 * ending.LEAVING.total_seconds())
            print("noted")

        ending.run_until_stopped(work, timedelta(0))
    """)

    assert (done.returncode, done.stdout, done.stderr) == (0, "worked\nnoted\n", "")


def test_a_stop_that_takes_too_long_ends_the_process_and_says_what_is_going_on() -> None:
    done = ended("""
        @asynccontextmanager
        async def resource():
            yield
            await asyncio.Event().wait()

        async def work(stop):
            async with resource():
                stop.set()

        ending.run_until_stopped(work, timedelta(milliseconds=50))
    """)

    assert done.returncode == 1
    assert "ERROR The stop is not over after 0.25 s" in done.stderr
    assert ", in resource (" in done.stderr


def test_a_resource_that_blocks_the_loop_while_it_closes_does_not_keep_the_process() -> None:
    done = ended("""
        async def work(stop):
            stop.set()
            await asyncio.sleep(0)
            for_ever.wait()

        ending.run_until_stopped(work, timedelta(0))
    """)

    assert done.returncode == 1
    assert "- thread MainThread in wait (" in done.stderr


def test_last_words_that_cannot_be_said_do_not_keep_the_process() -> None:
    done = ended("""
        async def work(stop):
            stop.set()
            logging.getLogger().handlers[0].acquire()
            await asyncio.Event().wait()

        ending.run_until_stopped(work, timedelta(0))
    """)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_worker_that_is_not_stopped_goes_on() -> None:
    done = ended("""
        async def work(stop):
            await asyncio.sleep(3 * ending.CLOSING.total_seconds())
            print("still there")

        ending.run_until_stopped(work, timedelta(0))
    """)

    assert (done.returncode, done.stdout, done.stderr) == (0, "still there\n", "")


def test_a_stop_in_time_is_the_end_of_it() -> None:
    done = ended("""
        import time

        async def work(stop):
            stop.set()
            await asyncio.sleep(0)

        ending.run_until_stopped(work, timedelta(0))
        time.sleep(3 * ending.CLOSING.total_seconds())
        print("still there")
    """)

    assert (done.returncode, done.stdout, done.stderr) == (0, "still there\n", "")
