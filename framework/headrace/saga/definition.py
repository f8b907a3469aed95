"""What a saga is: its state, its steps in order, what undoes them, and what each answer means.

    class Checkout(Saga, service=order, starts_on=OrderPlaced, key="order_id"):
        order_id: str
        reason: str = ""

        @classmethod
        def begin(cls, event: OrderPlaced) -> Checkout: ...

        @step(done=StockReserved, failed=StockRejected, timeout=timedelta(minutes=1))
        def reserve(self) -> ReserveStock: ...

        @reserve.undo(done=StockReleased)
        def release(self) -> ReleaseStock: ...

        @reserve.on(StockRejected)
        def out_of_stock(self, event: StockRejected) -> None: ...

Everything that can be wrong with a definition is found when its class is made, at import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from inspect import Parameter
from types import FrameType
from typing import Any, ClassVar, Final, TypeAlias, TypeVar
from zlib import crc32

from pydantic import BaseModel, ConfigDict

from headrace.errors import DefinitionError
from headrace.events import Message, MessageType
from headrace.saga.hints import hints_of, messages_in, snake
from headrace.service import Service

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Types: TypeAlias = MessageType | Sequence[MessageType]

RETENTION: Final = timedelta(days=90)
"""How long a saga that has ended can be looked at."""

_UNDO_TIMEOUT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often something is sent before it is given up, and the pauses between: they double from
    `base` up to `cap`, each shortened by up to half, by what no two sagas have in common."""

    attempts: int = 10
    base: timedelta = timedelta(seconds=5)
    cap: timedelta = timedelta(minutes=15)

    def pause(self, attempt: int, salt: str) -> timedelta:
        """After the attempt of this number, the first being 1. The same salt gives the same."""
        longest: timedelta = min(self.cap, self.base * 2 ** min(attempt - 1, 30))
        return longest * (1 - crc32(f"{salt} {attempt}".encode()) / 2**33)


ONCE: Final = Retries(attempts=1)
"""What a step before the point of no return has: who does not answer in time is asked to undo."""


class TimedOut:
    """In place of an answer, in `@step.on(TimedOut)`: none came in time."""


@dataclass(frozen=True, slots=True)
class Abort:
    """What a free-form handler returns to have the saga undone, unless that is too late."""

    reason: str


@dataclass(slots=True, eq=False)
class Undo:
    """What undoes a step: a message, and the answers that mean it is undone, or not yet."""

    name: str
    function: Callable[..., Any]
    done: tuple[MessageType, ...]
    failed: tuple[MessageType, ...]
    timeout: timedelta | None
    retries: Retries
    scope: Mapping[str, Any]
    sends: tuple[MessageType, ...] = ()


@dataclass(slots=True, eq=False)
class Step:
    """One step of a saga, as `@step(…)` makes it of a method.

    `sends` are the types that the method may return; it is `conditional` if `None` is among them,
    and `local` if it returns nothing else: such a step is done when it is reached.
    """

    name: str
    function: Callable[..., Any]
    done: tuple[MessageType, ...]
    failed: tuple[MessageType, ...]
    again: tuple[MessageType, ...]
    timeout: timedelta | None
    given_retries: Retries | None
    pivot: bool
    nothing_to_undo: bool
    given_after: tuple[Step, ...] | None
    scope: Mapping[str, Any]
    reverse: Undo | None = None
    takes: dict[type, Callable[..., Any]] = field(default_factory=dict)
    sends: tuple[MessageType, ...] = ()
    conditional: bool = False
    local: bool = False
    after: tuple[str, ...] = ()
    retries: Retries = ONCE

    def undo(
        self,
        *,
        done: Types = (),
        failed: Types = (),
        timeout: timedelta = _UNDO_TIMEOUT,
        retries: Retries | None = None,
    ) -> Callable[[FunctionT], FunctionT]:
        """Make a method what undoes this step. It is sent when the step was done, and also when
        nobody knows, because no answer came: who takes it has to accept it for what never
        happened, and must refuse the step if that arrives later.

        Without a `done` it is sent, and that is that. Otherwise it is sent again when no answer
        comes in time, or one of `failed`, until its `retries` are exhausted: then the saga is
        stuck, and waits for an operator.
        """
        scope = _scope(sys._getframe(1))

        def decorate(function: FunctionT) -> FunctionT:
            if self.reverse is not None:
                raise DefinitionError(
                    f"The step {self.name} is undone by {self.reverse.name} and by "
                    f"{function.__name__}: one method undoes a step, and may return several "
                    "messages."
                )
            answers = _types(done)
            self.reverse = Undo(
                name=function.__name__,
                function=function,
                done=answers,
                failed=_types(failed),
                timeout=timeout if answers else None,
                retries=retries or Retries(),
                scope=scope,
            )
            return function

        return decorate

    def on(self, *answers: type) -> Callable[[FunctionT], FunctionT]:
        """Make a method what takes something from an answer into the state: it is called with the
        answer, and changes `self`. `TimedOut` stands for no answer, and comes alone."""

        def decorate(function: FunctionT) -> FunctionT:
            for answer in answers:
                if answer in self.takes:
                    raise DefinitionError(
                        f"Two methods of the step {self.name} take {answer.__name__}: "
                        f"{self.takes[answer].__name__} and {function.__name__}. Join them."
                    )
                self.takes[answer] = function
            return function

        return decorate

    @property
    def answers(self) -> tuple[MessageType, ...]:
        return (*self.done, *self.failed, *self.again)

    @property
    def waits(self) -> bool:
        """Whether it is done by an answer, not by being sent."""
        return bool(self.answers)


@dataclass(slots=True, eq=False)
class FreeForm:
    """A handler for what steps cannot say."""

    name: str
    function: Callable[..., Any]
    types: tuple[MessageType, ...]
    scope: Mapping[str, Any]
    sends: tuple[MessageType, ...] = ()


def step(
    *,
    done: Types = (),
    failed: Types = (),
    again: Types = (),
    timeout: timedelta | None = None,
    retries: Retries | None = None,
    pivot: bool = False,
    nothing_to_undo: bool = False,
    after: Step | Sequence[Step] | None = None,
) -> Callable[[Callable[..., Any]], Step]:
    """Make a method a step of its saga. It returns the command that asks for it.

    An answer of `done` means that it is done, one of `failed` that it is not and never will be,
    one of `again` that it is not yet: then, and after a `timeout`, it is sent again as often as
    `retries` say. By default they say once before the point of no return, and ten times after it.
    Without answers, it is done when it is sent; so is a method that returns `None` alone, and
    sends nothing. One that may return `None` says by that that the step is not needed.

    Steps run in the order of the class. `after` names what a step waits for instead: two with the
    same `after` run side by side. Once the `pivot` is done nothing is undone any more: what stands
    after it is sent until it succeeds. `nothing_to_undo` says that the step needs no `undo`.
    """
    scope = _scope(sys._getframe(1))

    def decorate(function: Callable[..., Any]) -> Step:
        return Step(
            name=function.__name__,
            function=function,
            done=_types(done),
            failed=_types(failed),
            again=_types(again),
            timeout=timeout,
            given_retries=retries,
            pivot=pivot,
            nothing_to_undo=nothing_to_undo,
            given_after=(after,) if isinstance(after, Step) else _tuple(after),
            scope=scope,
        )

    return decorate


def on(*types: MessageType) -> Callable[[Callable[..., Any]], FreeForm]:
    """Make a method what a saga does about an event that no step waits for, at any time before its
    end. It may change `self`, and returns messages to send, an `Abort`, both in a list, or
    nothing."""
    scope = _scope(sys._getframe(1))

    def decorate(function: Callable[..., Any]) -> FreeForm:
        return FreeForm(function.__name__, function, types, scope)

    return decorate


class Saga(BaseModel):
    """Base of a saga: its fields are the state, its steps are methods.

    `service` runs it. A message of `starts_on` begins one, by the class method `begin`. `key` names
    the field that tells one saga from another, in the state and in every message; `keys` gives
    another name for those where it differs. Once the `deadline` has passed it is undone, unless the
    point of no return has. `retention` is how long one that has ended is kept.

    Sagas in flight keep the `version` that they began with. So to change steps, leave the class as
    it is, and derive nothing from it: write another of the same `name` with the next version.
    """

    model_config = ConfigDict(
        extra="ignore",
        validate_assignment=True,
        hide_input_in_errors=True,
        ignored_types=(Step, FreeForm),
    )

    __saga__: ClassVar[Definition | None] = None

    def __init_subclass__(
        cls,
        *,
        service: Service | None = None,
        starts_on: Types = (),
        key: str | None = None,
        keys: Mapping[MessageType, str] | None = None,
        name: str | None = None,
        version: int = 1,
        deadline: timedelta | None = None,
        retention: timedelta = RETENTION,
        **kwargs: Any,
    ) -> None:
        # Here for the type checker, which reads the keywords off; the fields are known below.
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        service: Service | None = None,
        starts_on: Types = (),
        key: str | None = None,
        keys: Mapping[MessageType, str] | None = None,
        name: str | None = None,
        version: int = 1,
        deadline: timedelta | None = None,
        retention: timedelta = RETENTION,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.__saga__ = None
        if not starts_on and key is None:
            return
        # Late, because they need the class above.
        from headrace.saga.checks import defined
        from headrace.saga.handling import register

        definition = Definition(
            cls=cls,
            name=name or snake(cls.__name__),
            version=version,
            starts_on=_types(starts_on),
            key=key or "",
            keys=dict(keys or {}),
            deadline=deadline,
            retention=retention,
        )
        cls.__saga__ = defined(definition)
        if service is not None:
            register(service, definition)


@dataclass(slots=True, eq=False)
class Definition:
    """One version of a saga, as `Saga` was derived."""

    cls: type[Saga]
    name: str
    version: int
    starts_on: tuple[MessageType, ...]
    key: str
    keys: dict[MessageType, str]
    deadline: timedelta | None
    retention: timedelta
    steps: dict[str, Step] = field(default_factory=dict)
    free: dict[MessageType, FreeForm] = field(default_factory=dict)
    answers: dict[MessageType, tuple[Step, Undo | None]] = field(default_factory=dict)
    pivot: Step | None = None
    after_pivot: frozenset[str] = frozenset()

    @property
    def takes(self) -> tuple[MessageType, ...]:
        """Every type that it begins with, or hears of later."""
        return tuple(dict.fromkeys([*self.starts_on, *self.answers, *self.free]))

    @property
    def sends(self) -> frozenset[MessageType]:
        reverses = [step.reverse.sends for step in self.steps.values() if step.reverse]
        forward = [step.sends for step in self.steps.values()]
        free = [free.sends for free in self.free.values()]
        return frozenset(cls for each in (*reverses, *forward, *free) for cls in each)

    def before(self, name: str) -> set[str]:
        """All steps that are over when this one begins."""
        direct = self.steps[name].after
        return {*direct, *(earlier for each in direct for earlier in self.before(each))}

    def key_of(self, message: Message) -> str:
        """Which saga a message speaks of; empty if it does not say."""
        return _text(getattr(message, self.keys.get(type(message), self.key)))

    def key_of_state(self, state: Saga) -> str:
        """Which saga a state is of."""
        return _text(getattr(state, self.key))


def definition_of(saga: type[Saga] | Definition) -> Definition:
    """What a saga class defines; raises `DefinitionError` for a base class."""
    if isinstance(saga, Definition):
        return saga
    if saga.__saga__ is None:
        raise DefinitionError(
            f"{saga.__name__} does not say what starts it: write class {saga.__name__}(Saga, "
            'service=…, starts_on=…, key="…").'
        )
    return saga.__saga__


def _scope(frame: FrameType) -> Mapping[str, Any]:
    """The names around the class whose body this is."""
    outer = frame.f_back
    return {} if outer is None else outer.f_locals


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value.value if isinstance(value, Enum) else value)


def _types(given: Types) -> tuple[MessageType, ...]:
    return (given,) if isinstance(given, type) else tuple(given)


def _tuple(given: Sequence[Step] | None) -> tuple[Step, ...] | None:
    return None if given is None else tuple(given)


def members(definition: Definition) -> Iterator[tuple[str, Any]]:
    """What stands in the class and its bases, by name, in the order of the bodies."""
    found: dict[str, Any] = {}
    for base in reversed(definition.cls.__mro__):
        found |= vars(base)
    yield from found.items()


def resolve(definition: Definition) -> None:
    """Read the annotations of all methods that send something."""
    for each in definition.steps.values():
        hint = hints_of(each.function, each.scope).get("return", Parameter.empty)
        each.sends, nothing = messages_in(hint, f"{definition.cls.__name__}.{each.name}")
        each.local = nothing and not each.sends
        each.conditional = nothing and bool(each.sends)
        if each.reverse is not None:
            undo = each.reverse
            hint = hints_of(undo.function, undo.scope).get("return", Parameter.empty)
            undo.sends, _ = messages_in(hint, f"{definition.cls.__name__}.{undo.name}")
    for free in set(definition.free.values()):
        hint = hints_of(free.function, free.scope).get("return", Parameter.empty)
        free.sends, _ = messages_in(hint, f"{definition.cls.__name__}.{free.name}", Abort)
