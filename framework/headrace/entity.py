"""Entities: typed models that live in a service's table, one item each."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from headrace.attributes import dump, dump_fields, load_item, size_of
from headrace.errors import DefinitionError, HeadraceError, TooLarge
from headrace.limits import DYNAMODB_ITEM_BYTES
from headrace.ports import Item, ItemKey

DEFAULT_SORT_KEY = "-"
VERSION_ATTRIBUTE = "_version"
TYPE_ATTRIBUTE = "_type"


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """How the fields of an entity make its key: `order#{order_id}`, `line#{number}`."""

    pk: str
    sk: str

    def fields(self) -> tuple[str, ...]:
        """The fields in the templates, in order of first appearance."""
        names = (*_placeholders(self.pk), *_placeholders(self.sk))
        return tuple(dict.fromkeys(names))

    def key(self, table: str, values: dict[str, Any]) -> ItemKey:
        # Quoting keeps two different field values from ever making one key.
        quoted = {
            name: quote(_text(value), safe=" !$&'()*+,/:;=?@") for name, value in values.items()
        }
        return ItemKey(table, self.pk.format_map(quoted), self.sk.format_map(quoted))


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
        extra="ignore", defer_build=True, validate_assignment=True, populate_by_name=True
    )

    __key__: ClassVar[KeyTemplate | None] = None

    def __init_subclass__(
        cls, *, pk: str | None = None, sk: str = DEFAULT_SORT_KEY, **kwargs: Any
    ) -> None:
        # Here for the type checker, which reads the keywords off; the fields are known below.
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, pk: str | None = None, sk: str = DEFAULT_SORT_KEY, **kwargs: Any
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if pk is not None:
            cls.__key__ = _checked(cls, KeyTemplate(pk, sk))


EntityT = TypeVar("EntityT", bound=Entity)


def key_of(entity: Entity, table: str) -> ItemKey:
    template = _template(type(entity))
    return template.key(table, {name: getattr(entity, name) for name in template.fields()})


def key_for(
    cls: type[Entity], table: str, values: tuple[Any, ...], fields: dict[str, Any]
) -> ItemKey:
    """The key from field values given in the template's order, by name, or both."""
    template = _template(cls)
    names = template.fields()
    given = {**dict(zip(names, values, strict=False)), **fields}
    if len(values) > len(names) or set(given) != set(names):
        wanted = ", ".join(names)
        raise HeadraceError(
            f"The key of {cls.__name__} is made of {wanted}: give exactly these, as in "
            f"tx.get({cls.__name__}, {wanted})."
        )
    return template.key(table, given)


def to_item(entity: Entity, key: ItemKey, version: int) -> Item:
    """The whole item of an entity; raises `TooLarge` over 400 KB and `HeadraceError` for a
    value that DynamoDB cannot hold."""
    try:
        fields = dump_fields(entity.model_dump())
    except ValueError as error:
        raise HeadraceError(f"{type(entity).__name__} cannot be stored: {error}") from error
    item: Item = {
        **fields,
        **key.attributes(),
        VERSION_ATTRIBUTE: {"N": str(version)},
        TYPE_ATTRIBUTE: {"S": type(entity).__name__},
    }
    size = size_of(item)
    if size > DYNAMODB_ITEM_BYTES:
        raise TooLarge(
            f"{type(entity).__name__} {key.pk!r} has {size:,} bytes: a DynamoDB item holds "
            f"{DYNAMODB_ITEM_BYTES:,}. Split it, or keep the bulk in S3.",
            size=size,
            limit=DYNAMODB_ITEM_BYTES,
        )
    return item


def from_item(cls: type[EntityT], item: Item) -> EntityT:
    """The entity in an item; raises `HeadraceError` if it no longer fits its model."""
    try:
        return cls.model_validate(load_item(item))
    except ValidationError as error:
        raise HeadraceError(
            f"The stored item {item['pk']['S']!r} does not fit {cls.__name__}: {error}. Give new "
            "fields a default, or migrate the items first."
        ) from error


def version_of(item: Item) -> int:
    """The version headrace wrote into an item; 0 in an item that something else wrote."""
    version = item.get(VERSION_ATTRIBUTE)
    return int(version["N"]) if version is not None else 0


def _template(cls: type[Entity]) -> KeyTemplate:
    if cls.__key__ is None:
        raise DefinitionError(
            f"{cls.__name__} has no key: write class {cls.__name__}(Entity, "
            'pk="…#{field}") with a field that identifies it.'
        )
    return cls.__key__


def _checked(cls: type[Entity], template: KeyTemplate) -> KeyTemplate:
    unknown = [name for name in template.fields() if name not in cls.model_fields]
    if unknown:
        raise DefinitionError(
            f"The key of {cls.__name__} names {unknown[0]!r}, which is not a field of it: "
            f"its fields are {', '.join(cls.model_fields)}."
        )
    reserved = {"pk", "sk", VERSION_ATTRIBUTE, TYPE_ATTRIBUTE, "expires_at"} & set(cls.model_fields)
    if reserved:
        raise DefinitionError(
            f"{cls.__name__} has a field {reserved.pop()!r}, which headrace keeps for itself: "
            "choose another name."
        )
    if not template.pk or not template.sk:
        raise DefinitionError(f"{cls.__name__} has an empty pk or sk: DynamoDB wants text.")
    return template


def _placeholders(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _text(value: Any) -> str:
    ((_, content),) = dump(value).items()
    return str(content)
