"""A service: the handlers of one deployable, and what each of them declares.

Everything that can be wrong with a definition is found while it is registered, at import.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypeVar

from headrace.codec import Codec
from headrace.envelope import Metadata
from headrace.errors import DefinitionError, DuplicateName, HandlerSignatureError, NoTable
from headrace.events import Command, Event, Message, MessageType, contract_of, ensure_buildable
from headrace.filters import Filter
from headrace.middleware import Middleware
from headrace.policy import Policy
from headrace.ports import Delivery
from headrace.transaction import Transaction

MessageT = TypeVar("MessageT", bound=Message)
HandlerFunction = TypeVar("HandlerFunction", bound=Callable[..., Any])
ResourcesFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


class Argument(Enum):
    """What a handler's parameter is given, decided by its annotation."""

    MESSAGE = "message"
    TRANSACTION = "transaction"
    METADATA = "metadata"
    DELIVERY = "delivery"
    RESOURCES = "resources"


class OnHeld(Enum):
    """What a delivery does while another delivery of the same message holds the lease."""

    RETRY = "retry"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler and everything it declares.

    `consumer` names it in inbox records, so renaming a handler makes it a new consumer.
    `emits` are the types it may publish. A `pure` one does nothing but what its transaction says,
    so a run of it that wants nothing leaves no record. An `idempotent` handler keeps no inbox
    record; one with a `lease` takes the record before it runs.
    """

    name: str
    service: str
    function: Callable[..., Any]
    takes: tuple[MessageType, ...]
    emits: frozenset[MessageType]
    arguments: Mapping[str, Argument]
    queue: str
    policy: Policy
    where: Filter | None = None
    idempotent: bool = False
    timeout: timedelta | None = None
    lease: timedelta | None = None
    on_held: OnHeld = OnHeld.RETRY
    park: bool = False
    pure: bool = False

    @property
    def consumer(self) -> str:
        return f"{self.service}.{self.name}"

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    @property
    def uses_transaction(self) -> bool:
        return Argument.TRANSACTION in self.arguments.values()

    def accepts(self, message: Message) -> bool:
        """Whether this handler takes the message: its type, and its `where=` filter."""
        return type(message) in self.takes and (self.where is None or self.where.matches(message))


class _Named(Enum):
    AS_SERVICE = "as the service"


AS_SERVICE: Final = _Named.AS_SERVICE


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What every queue of a service has unless SQS forbids it.

    `visibility` must outlast the slowest handler; on Lambda, six times the function's
    timeout. Retention of the dead letters must exceed the queue's, because a standard
    dead-letter queue counts from the first enqueueing.
    """

    visibility: timedelta = timedelta(seconds=60)
    retention: timedelta = timedelta(days=4)
    dead_letter_retention: timedelta = timedelta(days=14)
    max_receive_count: int = 10


class Service:
    """One deployable service and its handlers.

        inventory = Service("inventory", bus="shop")

        @inventory.on(OrderPlaced)
        async def reserve_stock(event: OrderPlaced, tx: Transaction) -> StockReserved: ...

    `table` holds its entities and inbox records and is named as the service by default;
    `None` says that it has none. `resources` is an async context manager that makes what
    handlers need (one object, opened once per process and closed at its end). `middleware`
    runs around every handler, the first one outermost. `emits` are the messages that its
    transactions outside of handlers publish. `group_commit=False` commits every delivery in a
    call of its own.
    """

    def __init__(
        self,
        name: str,
        *,
        bus: str = "default",
        table: str | _Named | None = AS_SERVICE,
        resources: ResourcesFactory | None = None,
        middleware: Sequence[Middleware] = (),
        policy: Policy | None = None,
        queues: QueueSettings | None = None,
        emits: Iterable[MessageType] = (),
        group_commit: bool = True,
    ) -> None:
        _check_name("service", name)
        self.name = name
        self.bus = bus
        self.table = name if isinstance(table, _Named) else table
        self.resources = resources
        self.middleware = tuple(middleware)
        self.policy = policy or Policy()
        self.queue_settings = queues or QueueSettings()
        self.emits = frozenset(emits)
        self.group_commit = group_commit
        self._handlers: dict[str, Handler] = {}
        self._by_type: dict[tuple[str, MessageType], tuple[Handler, ...]] = {}
        self._codecs: dict[tuple[MessageType, ...], Codec] = {}
        if self.emits and self.table is None:
            raise NoTable(
                f"The service {name!r} emits outside of its handlers and has no table to keep that "
                'in until it is sent: write Service(…, table="…").'
            )

    def on(
        self,
        *types: type[MessageT],
        where: Callable[[MessageT], object] | None = None,
        name: str | None = None,
        queue: str | None = None,
        emits: Iterable[MessageType] = (),
        policy: Policy | None = None,
        idempotent: bool = False,
        timeout: timedelta | None = None,
        lease: timedelta | None = None,
        on_held: Literal["retry", "wait"] = "retry",
        park: bool = False,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register a handler for one or more events or commands.

        `where` is a condition on the event's fields, such as `lambda e: e.total > 100`; it
        becomes the rule's pattern and is applied again on receipt. `name` is by default the
        function's. `queue` gives the handler a queue of its own, `<service>-<queue>`.
        `emits` declares what `tx.publish` sends beyond the return annotation. `idempotent`
        says that running twice does no harm, so no inbox record is kept. `timeout` ends a
        run that takes longer; it is then retried.

        `lease` is for effects that no transaction can undo, a mail or a payment: one delivery
        of a message at a time runs the handler, for as long as it renews its lease. It ends by
        itself after this time if the process dies. Meanwhile another delivery comes again later
        (`on_held="retry"`), or waits in its place (`"wait"`).

        `park` is for a FIFO queue: when a message is given up, those behind it in its message
        group are kept in the table until it is redriven or dropped, so that none is handled out of
        order.

        Raises `HandlerSignatureError`, `DuplicateName`, `FilterError` or `DefinitionError`.
        """
        frame = sys._getframe(1)

        def register(function: HandlerFunction) -> HandlerFunction:
            handler_name = name or function.__name__
            _check_name("handler", handler_name)
            self._refuse_taken(handler_name, function)
            signature = _Signature(function, types, self.resources, frame.f_locals)
            self._by_type.clear()
            self._handlers[handler_name] = Handler(
                name=handler_name,
                service=self.name,
                function=function,
                takes=types,
                emits=signature.emits | frozenset(emits),
                arguments=signature.arguments,
                queue=self.name if queue is None else f"{self.name}-{queue}",
                policy=policy or self.policy,
                where=None if where is None else Filter.of(types, where),
                idempotent=idempotent,
                timeout=timeout,
                lease=lease,
                on_held=OnHeld(on_held),
                park=park,
            )
            return function

        if not types:
            raise HandlerSignatureError(
                f"{self.name}.on() names no event: write @{self.name}.on(OrderPlaced)."
            )
        for cls in types:
            self._refuse_unfit(cls, queue)
        self._refuse_on_held(on_held, lease)
        if lease is not None:
            self._refuse_lease(lease, idempotent)
        if park:
            self._refuse_park(queue, idempotent)
        return register

    def adopt(self, handler: Handler) -> None:
        """Take a handler as it is, in place of one that the same object made before: for what is
        made of more than one function. Raises `DuplicateName` and `DefinitionError`."""
        _check_name("handler", handler.name)
        known = self._handlers.get(handler.name)
        if known is not None and _owner(known) is not _owner(handler):
            self._refuse_taken(handler.name, handler.function)
        for cls in handler.takes:
            self._refuse_unfit(cls, None)
        self._by_type.clear()
        self._handlers[handler.name] = handler

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return tuple(self._handlers.values())

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues this service reads, its own first."""
        names = dict.fromkeys(handler.queue for handler in self.handlers)
        return tuple(sorted(names, key=lambda queue: (queue != self.name, queue)))

    def handlers_of(self, queue: str) -> tuple[Handler, ...]:
        """The handlers that read a queue. A queue that is not the service's own, such as one
        that was mapped to its Lambda function by hand, may bring whatever it handles."""
        own = tuple(handler for handler in self.handlers if handler.queue == queue)
        return own or self.handlers

    def handlers_for(self, queue: str, cls: MessageType) -> tuple[Handler, ...]:
        """Those of a queue's handlers that take messages of this type, whatever is in them."""
        found = self._by_type.get((queue, cls))
        if found is None:
            # Once, as a service may have hundreds of handlers.
            found = tuple(each for each in self.handlers_of(queue) if cls in each.takes)
            self._by_type[queue, cls] = found
        return found

    def codec(self, queue: str) -> Codec:
        """What decodes the messages of one of this service's queues."""
        types = tuple(dict.fromkeys(cls for h in self.handlers_of(queue) for cls in h.takes))
        if types not in self._codecs:
            # Building one takes pydantic some milliseconds, and a service may be run often.
            self._codecs[types] = Codec(types)
        return self._codecs[types]

    @property
    def redelivery_horizon(self) -> timedelta:
        """How long after its first delivery a message can come again: through the queue,
        the dead-letter queue, one redrive, and EventBridge's 24 hours of retries."""
        settings = self.queue_settings
        return 2 * settings.retention + settings.dead_letter_retention + timedelta(days=1)

    def __repr__(self) -> str:
        return f"Service({self.name!r})"

    def _refuse_taken(self, name: str, function: Callable[..., Any]) -> None:
        taken = self._handlers.get(name)
        if taken is not None:
            raise DuplicateName(
                f"The service {self.name!r} has two handlers named {name!r}: "
                f"{_spot(taken.function)} and {_spot(function)}. Rename one, or write "
                f'@{self.name}.on(…, name="…"); one function for several events is '
                f"@{self.name}.on(A, B)."
            )

    def _refuse_on_held(self, on_held: str, lease: timedelta | None) -> None:
        if on_held not in [known.value for known in OnHeld]:
            raise DefinitionError(
                f"@{self.name}.on(…, on_held={on_held!r}) is unknown: a delivery that finds the "
                "lease held can 'retry' or 'wait'."
            )
        if lease is None and on_held == OnHeld.WAIT.value:
            raise DefinitionError(
                f"@{self.name}.on(…, on_held='wait') stands without a lease to wait for: write "
                "lease=timedelta(…) beside it."
            )

    def _refuse_park(self, queue: str | None, idempotent: bool) -> None:
        if queue is None or not queue.endswith(".fifo"):
            raise DefinitionError(
                f"@{self.name}.on(…, park=True) keeps the order of message groups, which only a "
                'FIFO queue has: give the handler one with queue="….fifo", or leave park out.'
            )
        if idempotent or self.table is None:
            raise DefinitionError(
                f"@{self.name}.on(…, park=True) keeps messages in the table, and replays them to "
                "who remembers what it has done: leave idempotent=True out, and give the service "
                "a table."
            )

    def _refuse_lease(self, lease: timedelta, idempotent: bool) -> None:
        if idempotent or self.table is None:
            raise DefinitionError(
                f"@{self.name}.on(…, lease=…) keeps the lease in the inbox record, and there is "
                "none: leave idempotent=True out, and give the service a table."
            )
        if lease < timedelta(seconds=1):
            raise DefinitionError(
                f"A lease of {lease.total_seconds():g} s is over before it can be renewed: take "
                "one second or more, and at least what a slow call in the handler takes."
            )

    def _refuse_unfit(self, cls: Any, queue: str | None) -> None:
        if not (isinstance(cls, type) and issubclass(cls, (Event, Command))):
            raise HandlerSignatureError(
                f"@{self.name}.on takes classes derived from Event or Command, and "
                f"{getattr(cls, '__qualname__', repr(cls))} is none: write "
                f"@{self.name}.on(OrderPlaced) above the handler."
            )
        contract = contract_of(cls)
        if contract.owner is not None and contract.owner != self.name:
            raise DefinitionError(
                f"{cls.__name__} is a command of {contract.owner!r}, so {self.name!r} cannot "
                f'handle it: handle it there, or declare it with owner="{self.name}".'
            )
        if contract.owner is not None and queue is not None:
            raise DefinitionError(
                f"{cls.__name__} is a command, and commands arrive on the queue of their owner: "
                f'leave queue="{queue}" out.'
            )
        ensure_buildable(cls)


class _Signature:
    """What a handler's annotations say."""

    def __init__(
        self,
        function: Callable[..., Any],
        types: Sequence[MessageType],
        resources: ResourcesFactory | None,
        namespace: Mapping[str, Any],
    ) -> None:
        self._function = function
        self._types = types
        self._resources = resources
        self._hints = self._resolve(namespace)
        self.arguments = {
            parameter.name: self._argument(parameter)
            for parameter in inspect.signature(function).parameters.values()
        }
        self.emits = frozenset(self._emitted())
        if Argument.MESSAGE not in self.arguments.values():
            raise self._wrong("has no parameter for the event", self._example())

    def _resolve(self, namespace: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, localns=dict(namespace))
        except NameError as error:
            raise self._wrong(
                f"has an annotation that cannot be resolved ({error})",
                "Import the name at the top of the module, not under TYPE_CHECKING.",
            ) from error

    def _argument(self, parameter: inspect.Parameter) -> Argument:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise self._wrong("takes *args or **kwargs", self._example())
        if parameter.name not in self._hints:
            raise self._wrong(f"does not annotate {parameter.name!r}", self._example())
        hint = self._hints[parameter.name]
        if hint is Transaction:
            return Argument.TRANSACTION
        if hint is Metadata:
            return Argument.METADATA
        if hint is Delivery:
            return Argument.DELIVERY
        if self._is_message(hint):
            self._check_message(parameter.name, hint)
            return Argument.MESSAGE
        self._check_resources(parameter.name, hint)
        return Argument.RESOURCES

    def _is_message(self, hint: Any) -> bool:
        return all(isinstance(m, type) and issubclass(m, Message) for m in _members(hint))

    def _check_message(self, name: str, hint: Any) -> None:
        for cls in self._types:
            if not any(issubclass(cls, member) for member in _members(hint)):
                raise self._wrong(
                    f"is registered for {cls.__name__}, but {name!r} is annotated {_shown(hint)}",
                    self._example(),
                )

    def _check_resources(self, name: str, hint: Any) -> None:
        made = _made_by(self._resources) if self._resources else None
        if made is None:
            raise self._wrong(
                f"wants {name}: {_shown(hint)}, which headrace cannot supply",
                "A handler may take its event, tx: Transaction, metadata: Metadata, delivery: "
                "Delivery, and what Service(…, resources=…) yields, if that is annotated.",
            )
        if hint != made:
            raise self._wrong(
                f"wants {name}: {_shown(hint)}, but the service's resources are {_shown(made)}",
                f"Annotate it {name}: {_shown(made)}.",
            )

    def _emitted(self) -> Iterator[MessageType]:
        if "return" not in self._hints:
            raise self._wrong("does not say what it emits", self._example())
        for member in _members(self._hints["return"]):
            if member is type(None):
                continue
            if not (isinstance(member, type) and issubclass(member, Message)):
                raise self._wrong(
                    f"returns {_shown(member)}, which is neither an event nor a command",
                    "Return None, one event, a union of events, or a list of them.",
                )
            contract_of(member)
            ensure_buildable(member)
            yield member

    def _example(self) -> str:
        names = " | ".join(cls.__name__ for cls in self._types)
        return (
            f"Write def {self._function.__name__}(event: {names}, tx: Transaction) -> None, with "
            "the events it publishes in place of None."
        )

    def _wrong(self, what: str, instead: str) -> HandlerSignatureError:
        return HandlerSignatureError(f"The handler {_spot(self._function)} {what}. {instead}")


def _members(hint: Any) -> Iterator[Any]:
    """The classes in a union, in a list or tuple of them, or in an alias."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from _members(member)
    elif origin in _COLLECTIONS:
        for member in typing.get_args(hint):
            if member is not Ellipsis:
                yield from _members(member)
    else:
        yield hint


_COLLECTIONS: Final = (list, tuple, Sequence)


def _made_by(factory: ResourcesFactory) -> Any:
    """What a resources factory yields, by its return annotation; `None` if it has none."""
    try:
        made = typing.get_type_hints(factory).get("return")
    except NameError as error:
        raise DefinitionError(
            f"The return annotation of the resources factory {_spot(factory)} cannot be resolved "
            f"({error}): import the name at the top of the module."
        ) from error
    origin, arguments = typing.get_origin(made), typing.get_args(made)
    wrapped = isinstance(origin, type) and issubclass(
        origin, (AsyncIterator, AbstractAsyncContextManager)
    )
    return arguments[0] if wrapped and arguments else made


def _check_name(kind: str, name: str) -> None:
    # Names become queue, rule and table names: the characters that all of them take.
    if (
        not name
        or len(name) > 64
        or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    ):
        raise DefinitionError(
            f"The {kind} name {name!r} cannot be used: take 1 to 64 letters, digits, hyphens and "
            "underscores."
        )


def _owner(handler: Handler) -> object:
    return getattr(handler.function, "__self__", handler.function)


def _spot(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
