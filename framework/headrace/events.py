"""Events and commands: the typed contracts that services share.

An `Event` is a fact, named in the past tense, published on the bus for any number of
consumers. A `Command` is imperative and goes straight to the one queue of its owner. Both
are frozen pydantic models; what identifies them on the wire is a chosen name, never the
place of the class in the code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import Parameter, signature
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    ForwardRef,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import AliasChoices, BaseModel, ConfigDict
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from headrace.errors import DefinitionError, DuplicateName
from headrace.text import did_you_mean

Payload: TypeAlias = dict[str, Any]
"""The JSON object of an event's own fields, before it is validated."""

Upcaster: TypeAlias = Callable[[Payload], Payload]
UpcasterT = TypeVar("UpcasterT", bound=Upcaster)


@dataclass(frozen=True, slots=True)
class Contract:
    """What is said of an event or command on the wire.

    `name` is EventBridge's detail-type. An event has a `source`; a command has an `owner`,
    the service that handles it, and perhaps a `tenant`, the dotted path of the field that says
    whose it is. `native` events come from AWS itself or from another producer that knows nothing
    of headrace: their detail IS the payload.
    """

    name: str
    version: int
    source: str | None = None
    owner: str | None = None
    native: bool = False
    tenant: str | None = None
    upcasters: dict[int, Upcaster] = field(default_factory=dict, compare=False)

    def oldest_readable(self) -> int:
        """The lowest version from which an unbroken chain of upcasters leads to this one."""
        version = self.version
        while version - 1 in self.upcasters:
            version -= 1
        return version

    def upcast(self, payload: Payload, version: int) -> Payload:
        """The payload, taken step by step from `version` to the current one."""
        for step in range(version, self.version):
            payload = self.upcasters[step](payload)
        return payload


class Message(BaseModel):
    """What events and commands have in common: derive from `Event` or `Command` instead."""

    model_config = ConfigDict(
        frozen=True,
        # A consumer must survive a field it does not know yet.
        extra="ignore",
        # Building validators is what costs at a cold start: only what is handled is built.
        defer_build=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        allow_inf_nan=False,
        # What a sender wrote does not belong into logs and reasons.
        hide_input_in_errors=True,
    )

    __contract__: ClassVar[Contract | None] = None


class Event(Message):
    """A fact that other services may want to know.

        class OrderPlaced(Event, source="shop.order", version=1):
            order_id: str

    `source` names the producer and `version` the payload's shape (from 1). `name` is the
    detail-type, by default the name of the class; `native=True` says that the whole detail
    is the payload, as in events of AWS itself. Without a `source` the class is a base for
    other events and cannot be published. Raises `DuplicateName` and `DefinitionError`.
    """

    def __init_subclass__(
        cls,
        *,
        source: str | None = None,
        version: int = 1,
        name: str | None = None,
        native: bool = False,
        **kwargs: Any,
    ) -> None:
        # Here for the type checker, which reads the keywords off; the fields are known below.
        with refusing_keywords(cls, kwargs):
            super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        source: str | None = None,
        version: int = 1,
        name: str | None = None,
        native: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.__contract__ = None
        if source is not None:
            registry.add(cls, Contract(name or cls.__name__, version, source, None, native))


class Command(Message):
    """An instruction to the one service that owns it.

        class ReserveStock(Command, owner="inventory"):
            order_id: str

    It is sent to the queue of the service named `owner`, not through the bus. Without an
    `owner` the class is a base for other commands and cannot be sent.

    `tenant` names the field that says whose command it is, as in `tenant="customer_id"` or
    `tenant="customer.id"`: SQS then keeps one tenant's backlog from delaying the others. It says
    nothing about order. Raises `DefinitionError` if there is no such field.
    """

    def __init_subclass__(
        cls,
        *,
        owner: str | None = None,
        version: int = 1,
        name: str | None = None,
        tenant: str | None = None,
        **kwargs: Any,
    ) -> None:
        with refusing_keywords(cls, kwargs):
            super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        owner: str | None = None,
        version: int = 1,
        name: str | None = None,
        tenant: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.__contract__ = None
        if owner is not None:
            contract = Contract(name or cls.__name__, version, None, owner, tenant=tenant)
            registry.add(cls, contract)
        elif tenant is not None:
            raise DefinitionError(
                f"{cls.__name__} has a tenant and no owner to send it to: write "
                f'class {cls.__name__}(Command, owner="…", tenant={tenant!r}).'
            )


MessageType: TypeAlias = type[Message]


@contextmanager
def refusing_keywords(cls: type, keywords: Collection[str]) -> Iterator[None]:
    """Raises `DefinitionError` when what the block does with keywords of a class statement, which
    nobody has taken so far, fails: no base of the class takes them."""
    try:
        yield
    except TypeError as error:
        if not keywords:
            raise
        name = next(iter(keywords))
        hint = did_you_mean(name, _keywords_of(cls), "Its keywords are")
        raise DefinitionError(f"{cls.__name__} has an unknown keyword {name!r}. {hint}") from error


def _keywords_of(cls: type) -> Iterator[str]:
    """What the bases of a class take as keywords of its statement."""
    for base in cls.__mro__[1:]:
        if "__init_subclass__" in vars(base) and base is not object:
            for parameter in signature(base.__init_subclass__).parameters.values():
                if parameter.kind is Parameter.KEYWORD_ONLY:
                    yield parameter.name


class Registry:
    """The events and commands of this process by wire name; refuses a name twice."""

    def __init__(self) -> None:
        self._types: dict[str, MessageType] = {}

    def add(self, cls: MessageType, contract: Contract) -> None:
        """Make `cls` the one class of its wire name."""
        _refuse_bad_contract(cls, contract)
        known = self._types.get(contract.name)
        if known is not None and _spot(known) != _spot(cls):
            raise DuplicateName(
                f"Both {_spot(known)} and {_spot(cls)} claim the wire name "
                f'{contract.name!r}: give one of them another, as in name="…".'
            )
        cls.__contract__ = contract
        self._types[contract.name] = cls

    def find(self, name: str) -> MessageType | None:
        return self._types.get(name)

    def __iter__(self) -> Iterator[MessageType]:
        return iter(sorted(self._types.values(), key=lambda cls: contract_of(cls).name))

    @contextmanager
    def scratch(self, *, empty: bool = False) -> Iterator[None]:
        """Forget, on leaving, whatever was added inside: for tests that define events. With
        `empty`, names that are taken outside are free inside."""
        before = dict(self._types)
        if empty:
            self._types = {}
        try:
            yield
        finally:
            self._types = before


registry = Registry()


def contract_of(message: Message | MessageType) -> Contract:
    """The wire contract of an event or command, or of its class.

    Raises `DefinitionError` for a base class that has no source or owner.
    """
    cls = message if isinstance(message, type) else type(message)
    if cls.__contract__ is None:
        word = 'owner="…"' if issubclass(cls, Command) else 'source="…"'
        base = "Command" if issubclass(cls, Command) else "Event"
        raise DefinitionError(
            f"{cls.__name__} cannot be sent or handled: it has no {word[:-4]}. "
            f"Write class {cls.__name__}({base}, {word})."
        )
    return cls.__contract__


def upcaster(cls: MessageType, *, from_version: int) -> Callable[[UpcasterT], UpcasterT]:
    """Register a step that turns a payload of `from_version` into one of the next version.

    @upcaster(OrderPlaced, from_version=1)
    def add_currency(payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "currency": "EUR"}
    """
    contract = contract_of(cls)
    if not 1 <= from_version < contract.version:
        raise DefinitionError(
            f"{contract.name} is at version {contract.version}, so an upcaster can start "
            f"from version 1 to {contract.version - 1}, not from {from_version}."
        )
    if from_version in contract.upcasters:
        raise DuplicateName(
            f"{contract.name} already has an upcaster from version {from_version}: "
            f"keep one of the two."
        )

    def register(step: UpcasterT) -> UpcasterT:
        contract.upcasters[from_version] = step
        return step

    return register


def ensure_buildable(cls: MessageType) -> None:
    """Build the validators of `cls`; raises `DefinitionError` if a field cannot be JSON."""
    try:
        cls.model_rebuild()
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
        cause = str(error).splitlines()[0]
        raise DefinitionError(
            f"{cls.__name__} cannot be written as JSON: {cause} "
            "Use str, int, float, bool, Decimal, datetime, UUID, enums, lists, dicts or other "
            "pydantic models for its fields, and import their types at the top of the module."
        ) from error
    for model in _models_in(cls):
        _refuse_one_way(cls, model)
    # Again, because a field whose type was not known at the definition is known now.
    _refuse_bad_tenant(cls, cls.__contract__)


def json_schema(cls: MessageType) -> Mapping[str, Any]:
    """The JSON Schema of the payload as it is sent; raises `DefinitionError`."""
    ensure_buildable(cls)
    try:
        return cls.model_json_schema(mode="serialization")
    except Exception as error:
        raise DefinitionError(
            f"{cls.__name__} has no JSON Schema: {error} Replace the field by a type that "
            "JSON can carry."
        ) from error


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """A model and all that it nests, each once."""
    seen: set[type[BaseModel]] = set()
    waiting = [annotation]
    while waiting:
        found = waiting.pop()
        if isinstance(found, type) and issubclass(found, BaseModel) and found not in seen:
            seen.add(found)
            yield found
            waiting += [field.annotation for field in found.model_fields.values()]
        waiting += get_args(found)


def _refuse_one_way(cls: MessageType, model: type[BaseModel]) -> None:
    """A field that is written under one name and read under another is lost on the way."""
    for name, info in model.model_fields.items():
        written = info.serialization_alias or name
        read = info.validation_alias or name
        names = read.choices if isinstance(read, AliasChoices) else [read]
        by_name = model.model_config.get("populate_by_name") or model.model_config.get(
            "validate_by_name"
        )
        if written not in names and not (by_name and written == name):
            raise DefinitionError(
                f"{cls.__name__} is written with {written!r} and read with {read!r}: give "
                f"{model.__name__}.{name} one alias=… for both ways."
            )


def _refuse_bad_contract(cls: MessageType, contract: Contract) -> None:
    if contract.version < 1:
        raise DefinitionError(
            f"The version of {cls.__name__} is {contract.version!r}: versions are whole "
            "numbers from 1."
        )
    if not 1 <= len(contract.name) <= 128:  # EventBridge: detail-type has 1 to 128 characters
        raise DefinitionError(
            f"The wire name of {cls.__name__} has {len(contract.name)} characters: "
            "EventBridge takes 1 to 128."
        )
    if contract.source is not None and contract.source.startswith("aws.") and not contract.native:
        raise DefinitionError(
            f"{cls.__name__} has the source {contract.source!r}: only AWS may send from "
            "'aws.…'. Add native=True to receive it, or choose another source to send it."
        )
    if contract.source == "" or contract.owner == "":
        raise DefinitionError(f"{cls.__name__} has an empty source or owner: give it a name.")
    _refuse_bad_tenant(cls, contract)


def _refuse_bad_tenant(cls: MessageType, contract: Contract | None) -> None:
    """A tenant is one value of the message, behind fields that lead there."""
    if contract is None or contract.tenant is None:
        return
    models: list[type[BaseModel]] = [cls]
    members: set[Any] = set()
    for name in contract.tenant.split("."):
        annotations = [m.model_fields[name].annotation for m in models if name in m.model_fields]
        if not annotations:
            raise DefinitionError(
                f"{cls.__name__} has no field {contract.tenant!r} to take its tenant from: name "
                f"one of {_listed(models or [cls])}, or the path to one in a model, as in "
                '"customer.id".'
            )
        members = {member for found in annotations for member in _alternatives(found)}
        if any(isinstance(member, (str, ForwardRef)) for member in members):
            return  # not known before the class is built
        models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
    if models or any(_holds_several(member) for member in members):
        raise DefinitionError(
            f"The tenant of {cls.__name__}, {contract.tenant!r}, is not one value: name a field "
            f"that holds a text or a number{_instead(contract.tenant, models)}."
        )


def _holds_several(member: Any) -> bool:
    several = isinstance(member, type) and issubclass(member, Collection)
    return several and not issubclass(member, (str, bytes))


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that a field may have, without their own arguments."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    elif origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif hasattr(annotation, "__value__"):  # of Python 3.12: type CustomerId = str
        yield from _alternatives(annotation.__value__)
    else:
        yield annotation if origin is None else origin


def _listed(models: Sequence[type[BaseModel]]) -> str:
    return ", ".join(dict.fromkeys(name for model in models for name in model.model_fields))


def _instead(tenant: str, models: Sequence[type[BaseModel]]) -> str:
    names = [f'"{tenant}.{name}"' for model in models for name in model.model_fields]
    return f", such as {names[0]}" if names else ""


def _spot(cls: MessageType) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
