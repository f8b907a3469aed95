"""Condition and update expressions, as DynamoDB reads them.

One test runs a whole table of cases, because every test provisions tables of its own; what
it compares is the list of cases that came out otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import uuid4

from headrace.errors import Refused, TransactionCanceled
from headrace.ports import Action, Check, Condition, Item, ItemKey, Put, Update
from tests.contract.deviations import deviates
from tests.contract.topologies import TWO_TABLES
from tests.contract.world import World

KEY = ItemKey("accounts", "ada", "subject")
ITEM: Item = {
    **KEY.attributes(),
    "label": {"S": "hello"},
    "n": {"N": "10"},
    "two": {"N": "2"},
    "octets": {"B": b"hello"},
    "yes": {"BOOL": True},
    "nil": {"NULL": True},
    "steps": {"L": [{"N": "1"}, {"S": "b"}, {"M": {"deep": {"S": "found"}}}]},
    "bag": {"M": {"a": {"N": "1"}, "x.y": {"S": "dotted"}}},
    "tags": {"SS": ["a", "b"]},
    "sums": {"NS": ["1", "2.5"]},
}
VALUES: dict[str, Any] = {
    ":hello": {"S": "hello"},
    ":he": {"S": "he"},
    ":ell": {"S": "ell"},
    ":a": {"S": "a"},
    ":z": {"S": "z"},
    ":raw": {"B": b"hel"},
    ":ten": {"N": "10.0"},
    ":nine": {"N": "9"},
    ":five": {"N": "5"},
    ":two": {"N": "2"},
    ":one": {"N": "1"},
    ":ten_text": {"S": "10"},
    ":yes": {"BOOL": True},
    ":null": {"NULL": True},
    ":words": {"SS": ["b", "a"]},
    ":half": {"N": "2.50"},
    ":type_s": {"S": "S"},
    ":type_n": {"S": "N"},
    ":type_l": {"S": "L"},
    ":list": {"L": [{"S": "new"}]},
    ":b_word": {"SS": ["b"]},
    ":cd_words": {"SS": ["c", "b"]},
    ":ab_words": {"SS": ["a", "b"]},
    ":two_half": {"NS": ["2.50"]},
    ":map": {"M": {"k": {"S": "v"}}},
}
NAMES = {"#t": "label", "#xy": "x.y", "#n": "n", "#size": "size", "#m": "bag"}

HOLDS = (
    "n = :ten",
    "n <> :nine",
    "n > :nine",
    "n >= :ten AND n <= :ten",
    "two < n",
    "n BETWEEN :nine AND :ten",
    "label BETWEEN :a AND :z",
    "n IN (:nine, :ten_text, :ten)",
    "absent <> :one",
    "n <> :ten_text",
    "tags = :words",
    "yes = :yes",
    "nil = :null",
    "label = :hello AND NOT n = :nine",
    "NOT (n = :nine OR n = :five)",
    "n = :ten OR n = :nine AND label = :z",
    "not n = :nine and n = :ten",
    "attribute_exists(n)",
    "attribute_exists(steps[2].deep)",
    "attribute_not_exists(absent)",
    "attribute_not_exists(steps[3])",
    "attribute_not_exists(label.deep)",
    "attribute_type(label, :type_s)",
    "attribute_type(steps, :type_l)",
    "begins_with(label, :he)",
    "begins_with(octets, :raw)",
    "contains(label, :ell)",
    "contains(tags, :a)",
    "contains(steps, :one)",
    "size(label) = :five",
    "size(steps) > :two",
    "size(tags) = :two",
    "size(#m) = :two",
    "steps[0] = :one AND #m.a = :one",
    "#m.#xy <> :one AND attribute_exists(#m.#xy)",
    "#t = :hello AND #n = :ten",
)
FAILS = (
    "n = :ten_text",
    "n > :ten",
    "label < :a",
    "absent = :one",
    "absent < :one",
    "NOT absent <> :one",
    "label > :nine",
    "n BETWEEN :one AND :nine",
    "absent BETWEEN :one AND :nine",
    "n IN (:nine, :ten_text)",
    "n = :nine OR n = :ten AND label = :z",
    "(n = :ten OR n = :nine) AND label = :z",
    "attribute_exists(absent)",
    "attribute_not_exists(#m.a)",
    "attribute_type(label, :type_n)",
    "attribute_type(absent, :type_n)",
    "begins_with(label, :ell)",
    "contains(label, :z)",
    "contains(tags, :z)",
    "contains(n, :one)",
    "contains(absent, :one)",
    "size(label) = :one",
    "size(n) = :two",
    "size(absent) = :two",
    "#m.absent = :one",
)
INVALID_CONDITIONS = (
    "n",
    "n =",
    "n = = :ten",
    "n == :ten",
    "(n = :ten",
    "n = :ten)",
    "((n = :ten))",
    "n = :ten AND",
    "n BETWEEN :one",
    "n IN ()",
    "n = :undefined",
    "#undefined = :ten",
    "attribute_exists(:one)",
    "attribute_exists(n, two)",
    "size(label)",
    "if_not_exists(n, :one) = :one",
    "contains(label)",
    "steps[] = :one",
    "steps[-1] = :one",
    "attribute_exists(n) = :yes",
)
MISTYPED_CONDITIONS = (
    "n BETWEEN :ten AND :one",
    "n BETWEEN :one AND :a",
    "n < :yes",
    "n < :list",
    "attribute_type(label, label)",
    "attribute_type(label, :hello)",
    "begins_with(label, :one)",
)


class Change(NamedTuple):
    """An update and what it leaves: `None` for an attribute that goes."""

    expression: str
    left: Mapping[str, Any]


UPDATES = (
    Change("SET label = :z", {"label": {"S": "z"}}),
    Change("SET fresh = :one, #t = :z", {"fresh": {"N": "1"}, "label": {"S": "z"}}),
    Change("SET n = n + :one", {"n": {"N": "11"}}),
    Change("SET n = n - two", {"n": {"N": "8"}}),
    Change("SET n = :one - :half", {"n": {"N": "-1.5"}}),
    Change("SET n = two, two = n", {"n": {"N": "2"}, "two": {"N": "10"}}),
    Change("SET n = if_not_exists(n, :one)", {"n": {"N": "10"}}),
    Change("SET fresh = if_not_exists(fresh, :one) + :one", {"fresh": {"N": "2"}}),
    Change("SET fresh = if_not_exists(absent, label)", {"fresh": {"S": "hello"}}),
    Change(
        "SET steps = list_append(steps, :list)",
        {"steps": {"L": [*ITEM["steps"]["L"], {"S": "new"}]}},
    ),
    Change(
        "SET fresh = list_append(if_not_exists(fresh, :list), :list)",
        {"fresh": {"L": [{"S": "new"}, {"S": "new"}]}},
    ),
    Change("SET steps[0] = :a", {"steps": {"L": [{"S": "a"}, *ITEM["steps"]["L"][1:]]}}),
    Change(
        "SET steps[2].deep = :z",
        {"steps": {"L": [*ITEM["steps"]["L"][:2], {"M": {"deep": {"S": "z"}}}]}},
    ),
    Change(
        "SET #m.b = :map",
        {"bag": {"M": {**ITEM["bag"]["M"], "b": {"M": {"k": {"S": "v"}}}}}},
    ),
    Change("SET #m.#xy = :a", {"bag": {"M": {"a": {"N": "1"}, "x.y": {"S": "a"}}}}),
    Change("REMOVE label, absent", {"label": None}),
    Change("REMOVE #m.a, #m.gone", {"bag": {"M": {"x.y": {"S": "dotted"}}}}),
    Change("ADD n :half", {"n": {"N": "12.5"}}),
    Change("ADD fresh :half", {"fresh": {"N": "2.5"}}),
    Change("ADD tags :cd_words", {"tags": {"SS": ["a", "b", "c"]}}),
    Change("ADD fresh :b_word", {"fresh": {"SS": ["b"]}}),
    Change("DELETE tags :b_word", {"tags": {"SS": ["a"]}}),
    Change("DELETE tags :ab_words", {"tags": None}),
    Change("DELETE absent :b_word", {}),
    Change(
        "SET n = :one ADD two :one REMOVE label DELETE tags :b_word",
        {"n": {"N": "1"}, "two": {"N": "3"}, "label": None, "tags": {"SS": ["a"]}},
    ),
    Change("set n = :one remove label", {"n": {"N": "1"}, "label": None}),
)
INVALID_UPDATES = (
    "SET n = :undefined",
    "SET n = nonsense(label)",
    "ADD n :a",
    "DELETE tags :a",
)
MALFORMED_UPDATES = (
    "n = :one",
    "SET",
    "SET n",
    "SET n = ",
    "SET n = :one,",
    "SET n = :one SET two = :one",
    "SET n = size(label)",
    "REMOVE :one",
    "ADD n two",
)
MISTYPED_UPDATES = (
    "SET n = n + :a",
    "SET steps = list_append(steps, :one)",
)
CANNOT_UPDATE = (
    "SET n = absent",
    "SET absent.inside = :one",
    "ADD label :one",
    "ADD tags :two_half",
    "DELETE label :b_word",
)
CANNOT_UPDATE_OTHER_TYPES = (
    "SET n = label + :one",
    "SET #m[0] = :one",
    "SET steps = list_append(steps, label)",
)


def used(symbols: Mapping[str, Any], expression: str) -> dict[str, Any]:
    """The symbols that stand in the expression: DynamoDB refuses any more."""
    words = {word.strip(".,()[]") for word in expression.replace(".", " ").split()}
    return {
        name: symbols[name]
        for name in symbols
        if name in words or any(word.endswith(f"({name}") for word in words)
    }


def condition(expression: str) -> Condition:
    spaced = "".join(f" {c} " if c in "(),[].=<>+-" else c for c in expression)
    return Condition(expression, used(NAMES, spaced), used(VALUES, spaced))


async def begin(world: World) -> None:
    await world.provision(TWO_TABLES)
    await world.ports.store.write([Put("accounts", ITEM)])


async def outcome(world: World, action: Action) -> str:
    """`done`, `failed` or `invalid`; DynamoDB says the latter of a whole transaction, or, if it
    depends on the item, as the reason of one action."""
    try:
        await world.ports.store.transact([action], token=str(uuid4()))
    except TransactionCanceled as cancelled:
        (reason,) = cancelled.reasons
        assert reason is not None
        return {"ConditionalCheckFailed": "failed", "ValidationError": "invalid"}[reason.code]
    except Refused as refused:
        return {"ValidationException": "invalid"}[refused.code]
    return "done"


async def check_all(world: World, expected: Mapping[str, str]) -> dict[str, str]:
    """The conditions that come out otherwise on the item, and how."""
    await begin(world)
    found = {each: await outcome(world, Check(KEY, condition(each))) for each in expected}
    return differences(found, expected)


async def update_all(world: World, expected: Mapping[str, str]) -> dict[str, str]:
    """The updates that come out otherwise on the item, and how."""
    await begin(world)
    found = {each: await outcome(world, update(each)) for each in expected}
    return differences(found, expected)


# --- conditions ------------------------------------------------------------------------


async def test_conditions_hold_or_fail_as_they_say(world: World) -> None:
    expected = dict.fromkeys(HOLDS, "done") | dict.fromkeys(FAILS, "failed")

    assert await check_all(world, expected) == {}


async def test_an_absent_item_meets_only_what_asks_for_its_absence(world: World) -> None:
    await begin(world)
    nobody = ItemKey("accounts", "ada", "nobody")
    expected = {
        "attribute_not_exists(n)": "done",
        "n <> :nine": "done",
        "attribute_exists(n)": "failed",
        "n = :nine": "failed",
        "n < :nine": "failed",
    }

    found = {each: await outcome(world, Check(nobody, condition(each))) for each in expected}

    assert differences(found, expected) == {}


@deviates("absent-equals-absent")
async def test_what_is_absent_is_unequal_even_to_what_is_absent(world: World) -> None:
    expected = {"absent = absent2": "failed", "absent <> absent2": "done"}

    assert await check_all(world, expected) == {}


@deviates("numbers-in-sets-compared-as-text")
async def test_numbers_in_sets_are_equal_by_their_worth(world: World) -> None:
    assert await check_all(world, {"contains(sums, :half)": "done"}) == {}

    assert await after_update(world, "DELETE sums :two_half") == after(sums={"NS": ["1"]})


@deviates("wrong-type-in-begins-with-is-an-error")
async def test_an_attribute_of_the_wrong_type_begins_with_nothing(world: World) -> None:
    assert await check_all(world, {"begins_with(n, :he)": "failed"}) == {}


async def test_invalid_conditions_are_refused(world: World) -> None:
    assert await check_all(world, dict.fromkeys(INVALID_CONDITIONS, "invalid")) == {}


@deviates("operand-types-of-conditions-not-checked")
async def test_values_of_a_type_that_cannot_fit_are_refused_whatever_the_item(
    world: World,
) -> None:
    assert await check_all(world, dict.fromkeys(MISTYPED_CONDITIONS, "invalid")) == {}


@deviates("unknown-functions-and-operators-accepted")
async def test_functions_and_operators_that_are_not_dynamodbs_are_refused(world: World) -> None:
    unknown = ("n != :ten", "SIZE(label) = :one", "nonsense(label)")

    assert await check_all(world, dict.fromkeys(unknown, "invalid")) == {}


@deviates("comparison-with-itself-accepted")
async def test_an_attribute_cannot_be_compared_with_itself(world: World) -> None:
    assert await check_all(world, {"n = n": "invalid"}) == {}


@deviates("reserved-words-accepted")
async def test_a_reserved_word_needs_a_placeholder(world: World) -> None:
    assert await check_all(world, {"size = :ten": "invalid", "#size <> :ten": "done"}) == {}
    assert await update_all(world, {"SET size = :one": "invalid", "SET #size = :one": "done"}) == {}


async def test_symbols_that_nothing_uses_are_refused(world: World) -> None:
    await begin(world)
    actions: dict[str, Action] = {
        "value": Check(KEY, Condition("attribute_exists(n)", {}, {":one": {"N": "1"}})),
        "name": Check(KEY, Condition("attribute_exists(n)", {"#t": "label"}, {})),
        "update": Update(KEY, "REMOVE label", {}, {":one": {"N": "1"}}),
    }

    found = {name: await outcome(world, action) for name, action in actions.items()}

    assert found == dict.fromkeys(actions, "invalid")


async def test_an_update_and_its_condition_may_share_symbols(world: World) -> None:
    await begin(world)
    ten = {":ten": {"N": "10"}}

    shared = Update(KEY, "SET two = :ten", {}, ten, Condition("n = :ten", {}, ten))

    assert await outcome(world, shared) == "done"


# --- updates ---------------------------------------------------------------------------


async def test_updates_leave_what_they_say(world: World) -> None:
    await begin(world)
    expected = {change.expression: after(**change.left) for change in UPDATES}

    found = {each: await after_update(world, each) for each in expected}

    assert differences(found, expected) == {}


@deviates("set-beyond-the-end-pads")
async def test_setting_an_element_beyond_the_end_of_a_list_appends_it(world: World) -> None:
    await begin(world)

    left = after(steps={"L": [*ITEM["steps"]["L"], {"S": "a"}]})
    assert await after_update(world, "SET steps[9] = :a") == left


@deviates("removed-indexes-shift")
async def test_indexes_to_remove_are_those_of_the_list_before(world: World) -> None:
    await begin(world)

    left = after(steps={"L": ITEM["steps"]["L"][2:]})
    assert await after_update(world, "REMOVE steps[0], steps[1]") == left


@deviates("removals-make-an-item")
async def test_an_update_that_only_takes_away_makes_no_item(world: World) -> None:
    await world.provision(TWO_TABLES)

    removals = ("REMOVE label", "DELETE tags :b_word")
    assert [await outcome(world, update(each)) for each in removals] == ["done", "done"]

    assert await world.ports.store.get([KEY]) == [None]


async def after_update(world: World, expression: str) -> Any:
    await world.ports.store.write([Put("accounts", ITEM)])
    result = await outcome(world, update(expression))
    (item,) = await world.ports.store.get([KEY])
    return comparable(item or {}) if result == "done" else result


def after(**changes: Any) -> Any:
    """The item with these changes; `None` takes an attribute away."""
    left = {**ITEM, **changes}
    return comparable({name: value for name, value in left.items() if value is not None})


async def test_invalid_updates_are_refused(world: World) -> None:
    assert await update_all(world, dict.fromkeys(INVALID_UPDATES, "invalid")) == {}


@deviates("update-syntax-not-checked")
async def test_malformed_updates_are_refused(world: World) -> None:
    assert await update_all(world, dict.fromkeys(MALFORMED_UPDATES, "invalid")) == {}


@deviates("operand-types-of-updates-not-checked")
async def test_updates_with_values_of_the_wrong_type_are_refused(world: World) -> None:
    assert await update_all(world, dict.fromkeys(MISTYPED_UPDATES, "invalid")) == {}


@deviates("overlapping-paths-accepted")
async def test_an_update_changes_each_part_of_an_item_once(world: World) -> None:
    twice = ("SET n = :one, n = :two", "SET #m.a = :one, #m = :map")

    assert await update_all(world, dict.fromkeys(twice, "invalid")) == {}


@deviates("key-changes-accepted")
async def test_an_update_cannot_change_the_key(world: World) -> None:
    assert await update_all(world, {"SET pk = :a": "invalid", "REMOVE sk": "invalid"}) == {}


async def test_updates_that_do_not_fit_the_item_are_not_made(world: World) -> None:
    assert await update_all(world, dict.fromkeys(CANNOT_UPDATE, "invalid")) == {}
    assert await world.ports.store.get([KEY]) != [None]


@deviates("paths-into-nothing-accepted")
async def test_a_path_leads_through_maps_and_lists_that_are_there(world: World) -> None:
    astray = ("REMOVE absent.inside", "SET label.inside = :one")

    assert await update_all(world, dict.fromkeys(astray, "invalid")) == {}


@deviates("operand-types-of-updates-not-checked")
async def test_updates_that_do_not_fit_the_types_of_the_item_are_not_made(world: World) -> None:
    assert await update_all(world, dict.fromkeys(CANNOT_UPDATE_OTHER_TYPES, "invalid")) == {}


def update(expression: str) -> Update:
    symbols = condition(expression)
    return Update(KEY, expression, symbols.names, symbols.values)


def comparable(value: Any) -> Any:
    """With sets in order, and numbers by their worth."""
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {name: _comparable_content(name, inner) for name, inner in value.items()}


def _comparable_content(tag: str, content: Any) -> Any:
    match tag:
        case "SS":
            return sorted(content)
        case "NS":
            return sorted(map(Decimal, content))
        case "N":
            return Decimal(content)
        case _:
            return comparable(content)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """What came out otherwise than expected: `expression: found`."""
    return {name: found[name] for name in expected if found[name] != expected[name]}
