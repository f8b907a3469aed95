"""Entities: typed models that live in a service's table, one item each."""

from __future__ import annotations

import string
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from uuid import UUID

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from headrace.attributes import dump, dump_fields, load_item, size_of
from headrace.errors import DefinitionError, HeadraceError, TooLarge
from headrace.events import Message, refusing_keywords
from headrace.limits import DYNAMODB_ITEM_BYTES, PARTITION_KEY_BYTES, SORT_KEY_BYTES
from headrace.ports import Item, ItemKey
from headrace.text import shown, text_size

DEFAULT_SORT_KEY = "-"
VERSION_ATTRIBUTE = "_version"
WRITES = 1_000_000
"""A version is the time at which the item was made, in microseconds, times this, plus the writes
since then. More writes than this harm nothing: they only run into the time."""
TYPE_ATTRIBUTE = "_type"


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """How the fields of an entity make its key: `order#{order_id}`, `line#{number}`."""

    pk: str
    sk: str

    def fields(self) -> tuple[str, ...]:
        """The fields in the templates, in order of first appearance."""
        return _fields(self.pk, self.sk)

    def key(self, table: str, values: dict[str, Any]) -> ItemKey:
        """The key these field values make; no other values make the same.

        Raises `HeadraceError` for a value that is no identifier, and `TooLarge` for a key that
        DynamoDB would refuse.
        """
        texts = {name: _text(name, value) for name, value in values.items()}
        pk, sk = _filled(self.pk, texts), _filled(self.sk, texts)
        _refuse_long("pk", pk, PARTITION_KEY_BYTES)
        _refuse_long("sk", sk, SORT_KEY_BYTES)
        return ItemKey(table, pk, sk)


class Entity(BaseModel):
    """A model that is kept in the table of its service.

        class Stock(Entity, pk="stock#{sku}"):
            sku: str
            available: int

    `pk` and the optional `sk` are templates over the entity's own fields. headrace keeps a
    version beside the fields: a `put` after a `get` fails as a conflict if another writer
    came between. Raises `DefinitionError` for a template that names no field.
    """

    model_config = ConfigDict(
        extra="ignore",
        defer_build=True,
        validate_assignment=True,
        populate_by_name=True,
        # What is kept does not belong into logs and reasons.
        hide_input_in_errors=True,
    )

    __key__: ClassVar[KeyTemplate | None] = None

    kept_by_headrace: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(
        cls, *, pk: str | None = None, sk: str = DEFAULT_SORT_KEY, **kwargs: Any
    ) -> None:
        # Here for the type checker, which reads the keywords off; the fields are known below.
        with refusing_keywords(cls, kwargs):
            super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, pk: str | None = None, sk: str = DEFAULT_SORT_KEY, **kwargs: Any
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        # Not inherited: two classes under one key would overwrite each other's items.
        cls.__key__ = None if pk is None else _checked(cls, KeyTemplate(pk, sk))

    def attributes_of_headrace(self) -> Item:
        """What stands in the item beside the fields, of the names in `kept_by_headrace`: for
        entities of headrace's own."""
        return {}


EntityT = TypeVar("EntityT", bound=Entity)


def key_of(entity: Entity, table: str) -> ItemKey:
    """The key of an entity; raises `DefinitionError` for what is none, or has no key."""
    if not isinstance(entity, Entity):
        raise DefinitionError(f"{_described(entity)}: put, delete and check take entities.")
    template = template_of(type(entity))
    return template.key(table, {name: getattr(entity, name) for name in template.fields()})


def key_for(
    cls: type[Entity], table: str, values: tuple[Any, ...], fields: dict[str, Any]
) -> ItemKey:
    """The key from field values given in the template's order, by name, or both."""
    template = template_of(cls)
    names = template.fields()
    given = {**dict(zip(names, values, strict=False)), **fields}
    if len(values) > len(names) or set(given) != set(names):
        wanted = ", ".join(names)
        raise HeadraceError(
            f"The key of {cls.__name__} is made of {wanted}: give exactly these, as in "
            f"tx.get({cls.__name__}, {wanted})."
        )
    return template.key(table, given)


def key_fields_of(cls: type[Entity], values: tuple[Any, ...]) -> dict[str, Any]:
    """The fields of the key, named, from values given in the template's order."""
    return dict(zip(template_of(cls).fields(), values, strict=True))


class Partition(NamedTuple):
    """Entities that share a partition key, and how their sort keys begin; or one of them, if its
    key is `whole`."""

    table: str
    pk: str
    sk_prefix: str
    whole: bool = False

    def holds(self, key: ItemKey) -> bool:
        if (key.table, key.pk) != (self.table, self.pk):
            return False
        return key.sk == self.sk_prefix if self.whole else key.sk.startswith(self.sk_prefix)


def partition_for(
    cls: type[Entity], table: str, values: tuple[Any, ...], fields: dict[str, Any]
) -> Partition:
    """What a query reads: every field of `pk` must be given, and those of `sk` from the left."""
    template = template_of(cls)
    names = template.fields()
    given = {**dict(zip(names, values, strict=False)), **fields}
    needed = _placeholders(template.pk)
    known = [name for name in names if name in given]
    if (
        len(values) > len(names)
        or not set(given) <= set(names)
        or not set(needed) <= set(given)
        or known != list(names[: len(known)])
    ):
        raise HeadraceError(
            f"A query of {cls.__name__} takes {', '.join(needed) or 'nothing'}, and then what its "
            f"sort key {template.sk!r} begins with, from the left."
        )
    texts = {name: _text(name, value) for name, value in given.items()}
    pk = _filled(template.pk, {name: texts[name] for name in needed})
    return Partition(table, pk, _beginning(template.sk, texts), whole=len(known) == len(names))


def to_item(entity: Entity, key: ItemKey, version: int) -> Item:
    """The whole item of an entity; raises `TooLarge` over 400 KB and `HeadraceError` for a
    value that DynamoDB cannot hold, or that could not be read again."""
    cls = type(entity)
    try:
        fields = entity.model_dump(round_trip=True, warnings=False)
        # A list that was changed in place has not been validated yet.
        cls.model_validate(fields, by_alias=True, by_name=True)
        item = dump_fields(fields)
    except ValueError as error:
        raise HeadraceError(f"{cls.__name__} cannot be stored: {error}") from error
    item |= {
        **key.attributes(),
        VERSION_ATTRIBUTE: {"N": str(version)},
        TYPE_ATTRIBUTE: {"S": cls.__name__},
        **entity.attributes_of_headrace(),
    }
    size = size_of(item)
    if size > DYNAMODB_ITEM_BYTES:
        raise TooLarge(
            f"{cls.__name__} {key.pk!r} has {size:,} bytes: a DynamoDB item holds "
            f"{DYNAMODB_ITEM_BYTES:,}. Split it, or keep the bulk in S3.",
            size=size,
            limit=DYNAMODB_ITEM_BYTES,
        )
    return item


def from_item(cls: type[EntityT], item: Item) -> EntityT:
    """The entity in an item; raises `HeadraceError` if it no longer fits its model."""
    own = _RESERVED | cls.kept_by_headrace
    fields = load_item({name: value for name, value in item.items() if name not in own})
    try:
        return cls.model_validate(fields, by_alias=True, by_name=True)
    except ValidationError as error:
        raise HeadraceError(
            f"The stored item {item['pk']['S']!r} does not fit {cls.__name__}: {error}. Give new "
            "fields a default, or migrate the items first."
        ) from error


def unknown_in(item: Item, cls: type[Entity]) -> Item:
    """The attributes of an item that a class reads under no name."""
    if cls.model_config.get("extra") == "allow":
        return {}
    read = {name for field in cls.model_fields.values() for name in _aliases(field)}
    own = {*cls.model_fields, *read, *cls.kept_by_headrace}
    return {name: v for name, v in item.items() if name not in own}


def _aliases(field: FieldInfo) -> Iterator[str]:
    for alias in (field.alias, field.validation_alias):
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            if choice is not None:
                yield str(choice.path[0]) if isinstance(choice, AliasPath) else choice


def version_of(item: Item) -> int:
    """The version headrace wrote into an item; 0 in an item that something else wrote."""
    version = item.get(VERSION_ATTRIBUTE)
    return int(version["N"]) if version is not None else 0


def template_of(cls: type[Entity]) -> KeyTemplate:
    """The key template of a class; raises `DefinitionError` if it has none."""
    if not isinstance(cls, type) or not issubclass(cls, Entity):
        raise DefinitionError(
            f"{shown(repr(cls))} is no class of entities: name a class that is derived from Entity."
        )
    if cls.__key__ is None:
        raise DefinitionError(
            f"{cls.__name__} has no key: write class {cls.__name__}(Entity, "
            'pk="…#{field}") with a field that identifies it.'
        )
    return cls.__key__


def _described(other: object) -> str:
    """What was given in the place of an entity, and what may have been meant."""
    if isinstance(other, type):
        return f"{other.__name__} is a class, and not an entity"
    name = type(other).__name__
    if isinstance(other, Coroutine):
        other.close()
        return f"A coroutine is no entity, so write await before it, as in await tx.get({_AS_IN})"
    if isinstance(other, Message):
        return f"{name} is an event or command, and no entity: tx.publish({name}(…)) sends it"
    return f'{name} is no entity: derive it as in class {name}(Entity, pk="…#{{field}}")'


_AS_IN: Final = 'Stock, "A-1"'


def _checked(cls: type[Entity], template: KeyTemplate) -> KeyTemplate:
    parts = [*_parts(template.pk), *_parts(template.sk)]
    unknown = [name for name in template.fields() if name not in cls.model_fields]
    if unknown:
        raise DefinitionError(
            f"The key of {cls.__name__} names {unknown[0]!r}, which is not a field of it: "
            f"its fields are {', '.join(cls.model_fields)}."
        )
    aliases = {alias for f in cls.model_fields.values() for alias in (f.alias,) if alias}
    reserved = sorted(_RESERVED & {*cls.model_fields, *aliases})
    if reserved:
        raise DefinitionError(
            f"{cls.__name__} has a field {reserved[0]!r}, which headrace keeps for itself: "
            "choose another name."
        )
    if not template.pk or not template.sk:
        raise DefinitionError(f"{cls.__name__} has an empty pk or sk: DynamoDB wants text.")
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise DefinitionError(
            f"The key of {cls.__name__} formats a field: a template takes plain {{field}}s. Keep "
            "the formatted text in a field of its own."
        )
    for part in (template.pk, template.sk):
        texts = [text for text, name, _, _ in _parts(part) if name is not None]
        if any(text.isalnum() or not text for text in texts[1:]):
            raise DefinitionError(
                f"The key of {cls.__name__} has two fields with nothing between them that tells "
                "where one ends: write a separator, as in {first}#{second}."
            )
    return template


_RESERVED: Final = frozenset({"pk", "sk", VERSION_ATTRIBUTE, TYPE_ATTRIBUTE, "expires_at"})


# Templates are few and keys are many: what a template says is found out once.


@cache
def _parts(template: str) -> tuple[tuple[str, str | None, str | None, str | None], ...]:
    return tuple(string.Formatter().parse(template))


@cache
def _placeholders(template: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in _parts(template) if name is not None)


@cache
def _fields(pk: str, sk: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_placeholders(pk), *_placeholders(sk))))


def _filled(template: str, texts: dict[str, str]) -> str:
    """The template with its fields in place. What separates fields is quoted within them, so
    that no two sets of values give one key."""
    quotes = _quotes(template)
    return template.format_map({name: text.translate(quotes) for name, text in texts.items()})


def _beginning(template: str, texts: dict[str, str]) -> str:
    """The template, filled up to its first field that is not given."""
    known = ""
    for literal, name, _, _ in _parts(template):
        known += literal.replace("{", "{{").replace("}", "}}")
        if name is None:
            continue
        if name not in texts:
            break
        known += f"{{{name}}}"
    quotes = _quotes(template)
    return known.format_map({name: text.translate(quotes) for name, text in texts.items()})


@cache
def _quotes(template: str) -> dict[int, str]:
    """For `str.translate`: what separates fields, as it is written within one."""
    literal = "".join(text for text, _, _, _ in _parts(template))
    special = {c for c in literal if not c.isalnum()} | {"#", "%"}
    return {ord(c): f"%{ord(c):02X}" for c in special}


def _text(name: str, value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID, date, Enum)):
        # Other types are written in more ways than one (1.1 and 1.10), or in none.
        raise HeadraceError(
            f"The key field {name!r} is {value!r}: a key is made of text, whole numbers, UUIDs, "
            "dates and enums."
        )
    ((_, content),) = dump(value).items()
    return str(content)


def _refuse_long(attribute: str, text: str, limit: int) -> None:
    size = text_size(text)
    if size > limit:
        raise TooLarge(
            f"The {attribute} {shown(text)[:60]!r}… has {size:,} bytes: DynamoDB takes {limit:,}.",
            size=size,
            limit=limit,
        )
