"""Update expressions: how they are read, and what they leave of an item."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from headrace.errors import Refused
from headrace.ports import Item
from headrace.testing.expressions import CannotUpdate, Symbols, parse_update, updated

LIST = [{"S": "zero"}, {"S": "one"}, {"M": {"x": {"N": "1"}}}]
ITEM: Item = {
    "n": {"N": "10"},
    "m": {"N": "2.5"},
    "label": {"S": "hello"},
    "steps": {"L": LIST},
    "bag": {"M": {"x": {"N": "1"}, "inside": {"M": {"y": {"S": "deep"}}}}},
    "tags": {"SS": ["a", "b"]},
    "sums": {"NS": ["1", "2.5"]},
}
NAMES = {"#n": "n", "#status": "status", "#dotted": "a.b"}
VALUES: dict[str, Any] = {
    ":1": {"N": "1"},
    ":3": {"N": "3"},
    ":half": {"N": "0.50"},
    ":neg": {"N": "-12"},
    ":long": {"N": "12345678901234567890123456789012345678"},
    ":tiny": {"N": "0.1"},
    ":s": {"S": "text"},
    ":l": {"L": [{"S": "new"}]},
    ":m": {"M": {"k": {"S": "v"}}},
    ":b": {"SS": ["b"]},
    ":bc": {"SS": ["b", "c"]},
    ":ab": {"SS": ["b", "a"]},
    ":ns": {"NS": ["2.50", "7"]},
}


def update(expression: str, item: Item = ITEM) -> Item:
    return updated(parse_update(expression, Symbols(NAMES, VALUES)), item)


@pytest.mark.parametrize(
    ("expression", "changes"),
    [
        # SET
        ("SET label = :s", {"label": {"S": "text"}}),
        ("SET #status = :s, #dotted = :1", {"status": {"S": "text"}, "a.b": {"N": "1"}}),
        ("SET n = m, m = n", {"n": {"N": "2.5"}, "m": {"N": "10"}}),
        ("SET n = n + :1", {"n": {"N": "11"}}),
        ("SET n = n + :half", {"n": {"N": "10.5"}}),
        ("SET n = n-n", {"n": {"N": "0"}}),
        ("SET n = :1 - m", {"n": {"N": "-1.5"}}),
        ("SET n = if_not_exists(n, :1)", {}),
        ("SET v = if_not_exists(v, :1)", {"v": {"N": "1"}}),
        ("SET v = if_not_exists(v, :1) + :1", {"v": {"N": "2"}}),
        ("SET v = if_not_exists(v, if_not_exists(w, n))", {"v": {"N": "10"}}),
        ("SET steps = list_append(steps, :l)", {"steps": {"L": [*LIST, {"S": "new"}]}}),
        ("SET steps = list_append(:l, steps)", {"steps": {"L": [{"S": "new"}, *LIST]}}),
        ("SET v = list_append(if_not_exists(v, :l), :l)", {"v": {"L": [{"S": "new"}] * 2}}),
        ("SET steps[1] = :s", {"steps": {"L": [LIST[0], {"S": "text"}, LIST[2]]}}),
        ("SET steps[7] = :s", {"steps": {"L": [*LIST, {"S": "text"}]}}),
        (
            "SET steps[9] = :s, steps[8] = :1",
            {"steps": {"L": [*LIST, {"N": "1"}, {"S": "text"}]}},
        ),
        ("SET steps[2].x = :3", {"steps": {"L": [*LIST[:2], {"M": {"x": {"N": "3"}}}]}}),
        ("SET bag = :m", {"bag": {"M": {"k": {"S": "v"}}}}),
        # REMOVE
        ("REMOVE label", {"label": None}),
        ("REMOVE label, nowhere", {"label": None}),
        ("REMOVE steps[0], steps[1]", {"steps": {"L": LIST[2:]}}),
        ("REMOVE steps[1], steps[0]", {"steps": {"L": LIST[2:]}}),
        ("REMOVE steps[9]", {}),
        ("REMOVE bag.nowhere", {}),
        ("REMOVE bag.inside.y", {"bag": {"M": {"x": {"N": "1"}, "inside": {"M": {}}}}}),
        # ADD
        ("ADD n :neg", {"n": {"N": "-2"}}),
        ("ADD v :half", {"v": {"N": "0.5"}}),
        ("ADD tags :bc", {"tags": {"SS": ["a", "b", "c"]}}),
        ("ADD v :b", {"v": {"SS": ["b"]}}),
        ("ADD sums :ns", {"sums": {"NS": ["1", "2.5", "7"]}}),
        ("ADD steps[2].x :1", {"steps": {"L": [*LIST[:2], {"M": {"x": {"N": "2"}}}]}}),
        # DELETE
        ("DELETE tags :b", {"tags": {"SS": ["a"]}}),
        ("DELETE tags :ab", {"tags": None}),
        ("DELETE sums :ns", {"sums": {"NS": ["1"]}}),
        ("DELETE v :b", {}),
        # together, all reading the item as it was
        ("SET v = n REMOVE n ADD m :half DELETE tags :b", None),
        ("set v = n remove n add m :half delete tags :b", None),
        ("DELETE tags :b ADD m :half REMOVE n SET v = n", None),
        ("SET steps[5] = :s REMOVE steps[0]", {"steps": {"L": [*LIST[1:], {"S": "text"}]}}),
    ],
)
def test_an_update_leaves(expression: str, changes: dict[str, Any] | None) -> None:
    if changes is None:
        changes = {"v": {"N": "10"}, "n": None, "m": {"N": "3"}, "tags": {"SS": ["a"]}}
    left = {**ITEM, **changes}

    assert update(expression) == {name: v for name, v in left.items() if v is not None}


def test_an_update_leaves_the_item_before_it_alone() -> None:
    before = deepcopy(ITEM)

    update("SET steps[0] = :s, bag.inside.y = :l ADD tags :bc REMOVE steps[2].x")

    assert before == ITEM


def test_what_an_update_copies_is_a_copy() -> None:
    after = update("SET v = bag, label = :m")
    after["v"]["M"]["x"]["N"] = "changed"
    after["label"]["M"]["k"]["S"] = "changed"

    assert ITEM["bag"]["M"]["x"] == {"N": "1"}
    assert VALUES[":m"] == {"M": {"k": {"S": "v"}}}


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("", "empty"),
        ("n = :1", "expected one of SET"),
        ("SET", "attribute name"),
        ("SET n", "'='"),
        ("SET n =", "attribute name"),
        ("SET n = :1,", "attribute name"),
        ("SET n = :1 m = :1", "expected one of REMOVE"),
        ("SET n = :1 SET m = :1", "at most once"),
        ("SET n = :1 + :1 + :1", "expected one of"),
        ("SET n = (:1)", "attribute name"),
        ("SET n = :nope", ":nope is not defined"),
        ("SET #nope = :1", "#nope is not defined"),
        ("SET status = :1", "reserved word"),
        ("SET n = m + :s", r"type S cannot go with \+"),
        ("SET n = :s - m", "type S cannot go with -"),
        ("SET n = size(label)", "size"),
        ("SET n = List_Append(steps, :l)", "List_Append"),
        ("SET steps = list_append(steps, :1)", "list_append"),
        ("SET n = if_not_exists(:1, n)", "attribute name"),
        ("SET n = if_not_exists(n)", "','"),
        ("SET :1 = n", "attribute name"),
        ("SET n = :1, n = :3", "overlap"),
        ("SET bag = :m, bag.x = :1", "overlap"),
        ("SET bag.x = :1 REMOVE bag", "overlap"),
        ("SET bag.x = :1, bag[0] = :1", "conflict"),
        ("REMOVE :1", "attribute name"),
        ("REMOVE steps[x]", "index"),
        ("ADD n m", ":value"),
        ("ADD n :s", "type S cannot go with ADD"),
        ("ADD steps :l", "type L cannot go with ADD"),
        ("DELETE tags :s", "type S cannot go with DELETE"),
        ("DELETE n :1", "type N cannot go with DELETE"),
    ],
)
def test_an_update_that_is_refused_whatever_the_item(expression: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as caught:
        parse_update(expression, Symbols(NAMES, VALUES))

    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("SET n = nowhere", "refers to nowhere"),
        ("SET n = steps[7]", r"refers to steps\[7\]"),
        ("SET n = nowhere + :1", "refers to nowhere"),
        ("SET n = label + :1", "is S and has to be N"),
        ("SET steps = list_append(steps, label)", "is S and has to be L"),
        ("SET steps = list_append(nowhere, :l)", "refers to nowhere"),
        ("SET nowhere.x = :1", "path nowhere.x"),
        ("SET label.x = :1", "path label.x"),
        ("SET bag[0] = :1", r"path bag\[0\]"),
        ("SET steps.x = :1", "path steps.x"),
        ("REMOVE nowhere.x", "path nowhere.x"),
        ("ADD label :1", "ADD of N does not go with S"),
        ("ADD tags :ns", "ADD of NS does not go with SS"),
        ("DELETE label :b", "DELETE of SS does not go with S"),
        ("SET n = :long + :tiny", "38 significant digits"),
    ],
)
def test_an_update_that_does_not_go_with_the_item(expression: str, sentence: str) -> None:
    with pytest.raises(CannotUpdate, match=sentence):
        update(expression)
