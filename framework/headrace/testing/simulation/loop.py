"""An event loop on which time is a number and chance has a seed.

Nothing is waited for: where every task sleeps, time moves on to the next timer. What is ready at
the same moment runs in an order that the seed decides. There are no sockets, and a function that
would run in a thread runs at once, so that the same program takes the same steps every time.

Several processes can live on one loop. Every callback belongs to the one that asked for it; a
process that is killed never runs again, not even its `finally` blocks, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, TypeVarTuple, cast

from headrace.errors import HeadraceError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CLOSINGS: Final = 100
"""How often a coroutine that is thrown away may go on waiting in its `finally` blocks."""


_MANY_TASKS: Final = 512
"""So many are kept in mind before those that are done are forgotten."""


class OutOfReach(HeadraceError):
    """There is nothing outside of a simulation that could be reached from inside."""


_NEVER: Final = float("inf")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of day when the time of a loop is 0."""


class StandsStill(HeadraceError):
    """Everything waits, and nothing is left that it could wait for."""


class Owner:
    """Whose callbacks these are: a simulated process, or the world around all of them.

    `steps_left` counts down whenever something from outside comes to it: an answer, the end of a
    sleep. (What it does in between is its own affair, and takes more or fewer turns of the loop
    from one version of Python to the next.) When it is used up, `on_last_step` is called first.
    Until `paused_until`, in the time of the loop, it does nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused_until = 0.0
        self.steps_left: float = float("inf")
        self.at_rest = False
        """Whether it has nothing in hand, and only looks for something to do."""
        self.spared = False
        """Whether it has suffered enough with what it has in hand."""
        self.on_last_step: Callable[[], None] = self.kill
        self.tasks = 0

    def kill(self) -> None:
        """Never run again."""
        self.alive = False

    def step(self) -> bool:
        """Something from outside comes to it, or it reaches out: whether it is alive then."""
        self.steps_left -= 1
        if self.steps_left < 0:
            self.steps_left = _NEVER
            self.on_last_step()
        return self.alive

    def __repr__(self) -> str:
        return f"<{self.name}>"


class _Handle(asyncio.TimerHandle):
    """A callback and whose it is. Only a timed one comes from outside of its owner.

    There are thousands of these in a run, so it is made and run without what asyncio's own does for
    debugging.
    """

    __slots__ = ("owner", "timed")

    def __init__(  # what asyncio's own would set, as far as anybody looks at it
        self,
        owner: Owner,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when: float = 0.0,
        *,
        timed: bool = False,
    ) -> None:
        self._callback: Callable[..., object] = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._when = when
        self.owner = owner
        self.timed = timed

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()

    def cancelled(self) -> bool:
        return self._cancelled

    def __repr__(self) -> str:
        return f"<{self._callback!r} of {self.owner}>"


def _nothing() -> None:
    """In place of a callback that was cancelled."""


class _Task(asyncio.Task[T]):
    owner: Owner
    number: int


class _AtOnce(Executor):
    """Runs a function where it is handed over, and has the answer at once."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(_called(fn, *args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def _called(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function as a thread would: no event loop runs there, and it may run its own."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return function(*args, **kwargs)
    finally:
        asyncio._set_running_loop(loop)


class SimulatedLoop(asyncio.AbstractEventLoop):
    """See the module. Use it as a context manager; on leaving, whatever still waits is thrown
    away without a word."""

    def __init__(self, seed: int | None = 0) -> None:
        self.world = Owner("world")
        self.current = self.world
        self.plain_functions: Executor = _AtOnce()
        self._seed = seed
        self._now = 0.0
        self._ready: list[_Handle] = []
        self._timers: list[tuple[float, int, _Handle]] = []
        self._numbers = 0
        self._begun_so_far = 0
        self._many = _MANY_TASKS
        self._tasks: dict[_Task[Any], None] = {}
        self._begun: list[asyncio.Task[None]] = []
        self._running = False
        self._closed = False
        self._on_exception: Callable[[dict[str, Any]], None] | None = None
        self._hooks: Any = None

    # --- running ---

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        if not asyncio.iscoroutine(future):
            raise TypeError("A simulated loop runs a coroutine.")
        task: asyncio.Task[T] = self.create_task(future)
        with self._entered():
            while not task.done():
                self._turn()
        return task.result()

    @contextmanager
    def _entered(self) -> Generator[None]:
        if self._running or self._closed:
            raise RuntimeError("This loop is running already, or closed.")
        self._running = True
        hooks, outer = sys.get_asyncgen_hooks(), asyncio._get_running_loop()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize)
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
            self._running = False

    def _turn(self) -> None:
        """Run what is ready now; move time on first, if that is nothing."""
        if not self._ready:
            self._wake()
        batch, self._ready = self._ready, []
        if len(batch) > 1 and self._seed is not None:
            batch = self._shuffled(batch)
        for handle in batch:
            owner = handle.owner
            if handle._cancelled or not owner.alive:
                continue
            if owner.paused_until > self._now:
                self._push(owner.paused_until, handle)
                continue
            if handle.timed and not owner.step():
                continue
            self.current = owner
            try:
                if handle._context is None:
                    handle._callback(*handle._args)
                else:
                    handle._context.run(handle._callback, *handle._args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"in {handle}", "exception": error})
        self.current = self.world

    def _wake(self) -> None:
        """Move time on to the next timer, and make ready what is due then."""
        timers = self._timers
        while timers:
            when, _, timer = heapq.heappop(timers)
            if timer._cancelled or not timer.owner.alive:
                continue
            if when == _NEVER:
                break
            self._now = max(self._now, when)
            self._ready.append(timer)
            while timers and timers[0][0] <= self._now:
                timer = heapq.heappop(timers)[2]
                if not timer._cancelled:
                    self._ready.append(timer)
            return
        raise StandsStill

    def _push(self, when: float, handle: _Handle) -> None:
        # Of two that are due together, the one that was asked for first comes first.
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, handle))

    def _shuffled(self, batch: list[_Handle]) -> list[_Handle]:
        """The steps of tasks in an order by the seed. Other callbacks keep theirs, on which
        asyncio's own classes rely; so do two steps of one task."""
        steps = [place for place, handle in enumerate(batch) if _task_of(handle) is not None]
        if len(steps) < 2:
            return batch
        seed, now = self._seed, self._now
        # Not drawn one after the other: how many turns an await takes differs between versions of
        # Python, and must not shift every later draw.
        order = sorted(steps, key=lambda place: hash((seed, now, _number_of(batch[place]))))
        shuffled = list(batch)
        for place, taken in zip(steps, order, strict=True):
            shuffled[place] = batch[taken]
        return shuffled

    # --- what belongs to whom ---

    def call_as(
        self,
        owner: Owner,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        counts: bool = True,
    ) -> asyncio.TimerHandle:
        """Call back after `delay` seconds, on behalf of `owner` and in no context. Whether that
        `counts` as a step of it is for the caller to say."""
        return self._timer(owner, self._now + delay, callback, args, None, counts=counts)

    def begin_as(self, owner: Owner, coro: Coroutine[Any, Any, None]) -> None:
        """Begin a task that belongs to `owner`, as does all that it begins."""
        before, self.current = self.current, owner
        try:
            self._begun.append(self.create_task(coro, context=Context()))
        finally:
            self.current = before

    def tasks_of(self, owner: Owner) -> list[asyncio.Task[Any]]:
        """The tasks of an owner that are not done, oldest first."""
        return [task for task in self._tasks if task.owner is owner and not task.done()]

    # --- the interface of event loops ---

    def time(self) -> float:
        return self._now

    def seconds_until(self, when: datetime) -> float:
        """From now; less than 0 for what has been."""
        return (when - START).total_seconds() - self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = _Handle(self.current, callback, args, context or copy_context())
        self._ready.append(handle)
        return handle

    # Threads do not exist here: whoever calls this is on the loop already.
    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self._timer(
            self.current, self._now + delay, callback, args, context or copy_context()
        )

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self._timer(self.current, when, callback, args, context or copy_context())

    def _timer(
        self,
        owner: Owner,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        *,
        counts: bool = True,
    ) -> asyncio.TimerHandle:
        timer = _Handle(owner, callback, args, context, when, timed=counts)
        self._push(when, timer)
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        owner = self.current
        owner.tasks += 1
        task = _Task(
            cast(Coroutine[Any, Any, T], coro),
            loop=self,
            name=f"{owner.name}-{owner.tasks}" if name is None else str(name),
            context=context,
        )
        task.owner = owner
        self._begun_so_far += 1
        task.number = self._begun_so_far
        self._tasks[task] = None
        if len(self._tasks) > self._many:
            self._tasks = {task: None for task in self._tasks if not task.done()}
            # Those of dead processes are never done.
            self._many = max(_MANY_TASKS, 2 * len(self._tasks))
        return task

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None:
            raise OutOfReach("A simulated loop makes its own tasks: set no factory for them.")

    def get_task_factory(self) -> None:
        return None

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(copy_context().run(_called, func, *args))
        except Exception as error:
            future.set_exception(error)
        return future

    def set_default_executor(self, executor: Any) -> None:
        """Every function runs at once, whatever the executor."""

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Nothing sends signals to a simulated process: it is stopped by its own event."""

    def remove_signal_handler(self, sig: int) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """There is no debug mode."""

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def get_exception_handler(self) -> Any:
        return self._on_exception

    def set_exception_handler(self, handler: Any) -> None:
        """`handler(loop, context)` is told of exceptions that nobody awaited."""
        self._on_exception = None if handler is None else lambda context: handler(self, context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Nobody is told: what a dead process leaves behind is no error."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._on_exception is not None and not self._closed and self.current.alive:
            self._on_exception(context)

    async def shutdown_asyncgens(self) -> None:
        """They end with the tasks that run them."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 asyncio's own signature
        """There are no threads."""

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._closed and self.current.alive:
            self.call_soon(self.create_task, _closed(generator))

    # --- the end ---

    def __enter__(self) -> SimulatedLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Throw away whatever still waits. Its `finally` blocks run now, when nothing that they
        do has an effect any more."""
        self._closed = True
        self.world.kill()
        for task in [task for task in self._tasks if not task.done()]:
            task.owner.kill()
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch
            _thrown_away(task.get_coro())
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()


def _out_of_reach(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OutOfReach(
            f"A simulation has no sockets, pipes and subprocesses ({name} was called): give the "
            "service resources of the simulation, and let them use World.outside."
        )

    return refuse


for _name in (
    *("add_reader", "add_writer", "remove_reader", "remove_writer", "getaddrinfo", "getnameinfo"),
    *("create_connection", "create_server", "create_datagram_endpoint", "start_tls", "sendfile"),
    *("create_unix_connection", "create_unix_server", "connect_accepted_socket"),
    *("sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_sendall"),
    *("sock_recvfrom", "sock_recvfrom_into", "sock_sendto", "sock_sendfile"),
    *("connect_read_pipe", "connect_write_pipe", "subprocess_exec", "subprocess_shell"),
    *("run_forever", "stop"),
):
    setattr(SimulatedLoop, _name, _out_of_reach(_name))


def simulated_loop(seed: int | None = 0) -> SimulatedLoop:
    """A loop at time 0. With `seed=None`, what is ready runs in the order in which it became so."""
    return SimulatedLoop(seed)  # type: ignore[abstract]  # the rest is out of reach, see above


class LoopClock:
    """The time of day by a loop, and how far this clock is off."""

    def __init__(self, loop: SimulatedLoop, off: timedelta = timedelta(0)) -> None:
        self._loop = loop
        self._start = START + off

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())


def _task_of(handle: _Handle) -> _Task[Any] | None:
    task = getattr(handle._callback, "__self__", None)
    return task if type(task) is _Task else None


def _number_of(handle: _Handle) -> int:
    task = _task_of(handle)
    return 0 if task is None else task.number


async def _closed(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _thrown_away(coroutine: Any) -> None:
    for _ in range(_CLOSINGS):
        try:
            coroutine.close()
        except RuntimeError:
            # It awaits something in a `finally` block; on with it, to its end.
            continue
        except BaseException:
            return
        return
