"""A definition that cannot work fails where it is written, with what to write instead."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from headrace import Command, Delivery, Event, Metadata, Service, Transaction
from headrace.errors import DefinitionError, DuplicateName, HandlerSignatureError
from headrace.service import Argument


class Placed(Event, source="shop.order"):
    order: str
    total: int = 0


class Cancelled(Event, source="shop.order"):
    order: str


class Reserve(Command, owner="stock"):
    order: str


class Base(Event):
    """No source: not an event on the wire."""


@pytest.fixture
def stock() -> Service:
    return Service("stock")


def test_a_handler_declares_what_it_takes_what_it_needs_and_what_it_emits(stock: Service) -> None:
    @stock.on(Placed)
    async def reserve(event: Placed, tx: Transaction) -> Cancelled | None: ...

    (handler,) = stock.handlers
    assert handler.name == "reserve"
    assert handler.consumer == "stock.reserve"
    assert handler.takes == (Placed,)
    assert handler.emits == {Cancelled}
    assert handler.arguments == {"event": Argument.MESSAGE, "tx": Argument.TRANSACTION}
    assert handler.queue == "stock"


def test_the_order_of_the_parameters_does_not_matter(stock: Service) -> None:
    @stock.on(Placed)
    async def reserve(
        metadata: Metadata, tx: Transaction, delivery: Delivery, placed: Placed
    ) -> None: ...

    assert list(stock.handlers[0].arguments.values()) == [
        Argument.METADATA,
        Argument.TRANSACTION,
        Argument.DELIVERY,
        Argument.MESSAGE,
    ]


@pytest.mark.parametrize(
    ("annotation", "emits"),
    [
        ("None", set()),
        ("Placed", {Placed}),
        ("Placed | Cancelled", {Placed, Cancelled}),
        ("list[Placed | Cancelled]", {Placed, Cancelled}),
        ("tuple[Placed, ...]", {Placed}),
        ("list[Placed] | Reserve | None", {Placed, Reserve}),
    ],
)
def test_the_return_annotation_is_what_the_handler_emits(
    stock: Service, annotation: str, emits: set[type]
) -> None:
    async def reserve(event: Placed) -> Any: ...

    reserve.__annotations__["return"] = annotation
    stock.on(Placed)(reserve)
    assert stock.handlers[0].emits == emits


def test_what_is_published_besides_the_return_value_is_declared_too(stock: Service) -> None:
    @stock.on(Placed, emits=[Reserve])
    async def reserve(event: Placed, tx: Transaction) -> Cancelled:
        return Cancelled(order=event.order)

    assert stock.handlers[0].emits == {Cancelled, Reserve}


def test_one_handler_may_take_several_events(stock: Service) -> None:
    @stock.on(Placed, Cancelled)
    async def note(event: Placed | Cancelled) -> None: ...

    assert stock.handlers[0].takes == (Placed, Cancelled)


def test_a_handler_with_a_queue_of_its_own_leaves_that_of_the_service(stock: Service) -> None:
    @stock.on(Placed, queue="slow")
    async def reserve(event: Placed) -> None: ...

    @stock.on(Cancelled)
    async def release(event: Cancelled) -> None: ...

    assert stock.queues == ("stock", "stock-slow")
    assert [handler.name for handler in stock.handlers_of("stock-slow")] == ["reserve"]


SOURCE = """
from headrace import Service, Event, Transaction
class {name}(Event, source="shop.made"):
    order: str
service = Service("made")
@service.on({name})
async def handle(event: {name}, tx: Transaction) -> {name} | None: ...
"""


@pytest.mark.parametrize("header", ["", "from __future__ import annotations\n"])
def test_annotations_may_be_text_or_types(header: str) -> None:
    module = types.ModuleType("made")
    code = compile(header + SOURCE.format(name="Made"), "made.py", "exec", dont_inherit=True)
    exec(code, module.__dict__)
    (handler,) = module.service.handlers
    assert [cls.__name__ for cls in handler.emits] == ["Made"]
    assert list(handler.arguments.values()) == [Argument.MESSAGE, Argument.TRANSACTION]


# Handlers that cannot work, and the sentence that says what to write instead. Their annotations
# are wrong on purpose, so they are set by hand where a type checker would refuse them.


def handler(parameters: str, returns: str | None = "None") -> Callable[..., Any]:
    arrow = "" if returns is None else f" -> {returns}"
    namespace: dict[str, Any] = {}
    exec(f"async def reserve({parameters}){arrow}: ...", globals(), namespace)
    function: Callable[..., Any] = namespace["reserve"]
    function.__module__ = __name__
    return function


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (handler(""), r"no parameter for the event\. Write def reserve\(event: Placed, tx: Tra"),
        (handler("event"), r"does not annotate 'event'\. Write def reserve"),
        (handler("event: Placed", None), r"does not say what it emits\. Write def reserve"),
        (handler("event: 'Gone'"), r"cannot be resolved \(name 'Gone'.*at the top of the module"),
        (handler("event: Cancelled"), r"registered for Placed, but 'event' is annotated Cancelled"),
        (handler("event: Placed", "int"), r"returns int, which is neither.*Return None, one event"),
        (handler("event: Placed", "'list[str]'"), r"returns str, which is neither"),
        (handler("event: Placed", "Base"), r'Base cannot be sent.*class Base\(Event, source="…"\)'),
        (handler("*events: Placed"), r"takes \*args or \*\*kwargs"),
        (handler("event: Placed, mail: int"), r"wants mail: int, which headrace cannot supply"),
    ],
)
def test_a_wrong_signature_is_refused_with_what_to_write(
    stock: Service, function: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        stock.on(Placed)(function)
    assert stock.handlers == ()


def test_a_registration_without_an_event_is_refused(stock: Service) -> None:
    with pytest.raises(HandlerSignatureError, match=r"write @stock\.on\(OrderPlaced\)"):
        stock.on()


@pytest.mark.parametrize("thing", [int, "Placed", None, handler("event: Placed")])
def test_a_registration_for_what_is_no_event_is_refused(stock: Service, thing: Any) -> None:
    with pytest.raises(HandlerSignatureError, match="classes derived from Event or Command"):
        stock.on(thing)


def test_a_decorator_without_its_event_is_refused_and_not_ignored(stock: Service) -> None:
    with pytest.raises(HandlerSignatureError, match=r"write @stock\.on\(OrderPlaced\)"):

        @stock.on  # type: ignore[arg-type, type-var]  # that is what is refused
        async def reserve(event: Placed) -> None: ...


def test_two_handlers_cannot_have_one_name(stock: Service) -> None:
    @stock.on(Placed)
    async def reserve(event: Placed) -> None: ...

    with pytest.raises(DuplicateName, match=r"two handlers named 'reserve'.*name=\"…\""):

        @stock.on(Cancelled, name="reserve")
        async def release(event: Cancelled) -> None: ...


def test_a_command_is_handled_by_its_owner_only() -> None:
    with pytest.raises(DefinitionError, match="Reserve is a command of 'stock', so 'mail' cannot"):
        Service("mail").on(Reserve)(handler("event: Reserve"))


def test_a_command_cannot_have_a_queue_of_its_own(stock: Service) -> None:
    with pytest.raises(DefinitionError, match='leave queue="slow" out'):
        stock.on(Reserve, queue="slow")(handler("event: Reserve"))


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "a/b", "ä"])
def test_a_name_that_aws_would_refuse_is_refused_first(name: str) -> None:
    with pytest.raises(DefinitionError, match="letters, digits, hyphens and underscores"):
        Service(name)


class Mailer:
    """What the resources of a service may be."""


@asynccontextmanager
async def mailer() -> AsyncIterator[Mailer]:
    yield Mailer()


@asynccontextmanager
async def unannotated():  # type: ignore[no-untyped-def]  # that is what is refused
    yield Mailer()


def test_a_handler_gets_the_resources_of_its_service_by_their_type() -> None:
    mail = Service("mail", resources=mailer)

    @mail.on(Placed)
    async def send(event: Placed, by: Mailer) -> None: ...

    assert mail.handlers[0].arguments["by"] is Argument.RESOURCES


def test_resources_of_another_type_are_refused_with_the_right_one() -> None:
    with pytest.raises(HandlerSignatureError, match="Annotate it mail: Mailer"):
        Service("mail", resources=mailer).on(Placed)(handler("event: Placed, mail: int"))


def test_resources_without_an_annotation_cannot_be_matched() -> None:
    with pytest.raises(HandlerSignatureError, match="if that is annotated"):
        Service("mail", resources=unannotated).on(Placed)(handler("event: Placed, mail: Mailer"))


def test_the_horizon_covers_the_queue_the_dead_letters_and_one_redrive() -> None:
    assert Service("stock").redelivery_horizon == timedelta(days=4 + 14 + 4 + 1)
