"""What is wrong with a saga is said when its class is made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Self

import pytest

from headrace import Command, Event, Service
from headrace.errors import DefinitionError
from headrace.events import registry
from headrace.saga import Abort, Saga, TimedOut, on, step
from headrace.saga.definition import definition_of
from headrace.service import QueueSettings

MINUTE = timedelta(minutes=1)


class KilnLit(Event, source="saga.potter"):
    pot: str


class FirePot(Command, owner="kiln"):
    pot: str


class PotFired(Event, source="saga.kiln"):
    pot: str


class PotCracked(Event, source="saga.kiln"):
    pot: str


class BreakPot(Command, owner="kiln"):
    pot: str
    shelf: str | None = None


class PotBroken(Event, source="saga.kiln"):
    pot: str


class GlazePot(Command, owner="kiln"):
    pot: str


class PotGlazed(Event, source="saga.kiln"):
    pot: str


class PotNamed(Event, source="saga.kiln"):
    name: str


class Potter(Saga):
    """What the pots here have in common."""

    pot: str

    @classmethod
    def begin(cls, event: KilnLit) -> Self:
        return cls(pot=event.pot)


class Fired(Potter):
    """With all that a saga needs."""

    @step(done=PotFired, failed=PotCracked, timeout=MINUTE)
    def fire(self) -> FirePot:
        return FirePot(pot=self.pot)


@pytest.fixture(autouse=True)
def scratch() -> Iterator[None]:
    with registry.scratch():
        yield


def test_an_answer_that_no_step_maps_is_refused() -> None:
    with pytest.raises(DefinitionError, match="takes PotCracked in cracked, and nothing maps it"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, timeout=MINUTE)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @fire.on(PotCracked)
            def cracked(self, event: PotCracked) -> None: ...


def test_a_step_without_a_way_to_fail_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"cannot fail: fire would wait for ever .* timeout="):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)


def test_an_undo_that_needs_what_the_state_does_not_hold_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"uses self\.shelf in smash, and the state holds no"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, failed=PotCracked)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @fire.undo(done=PotBroken)
            def smash(self) -> BreakPot:
                return BreakPot(pot=self.pot, shelf=self.shelf)  # type: ignore[attr-defined]


def test_an_undo_that_needs_what_nothing_ever_sets_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"needs self\.shelf in smash, and nothing ever"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            shelf: str | None = None

            @step(done=PotFired, failed=PotCracked)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @fire.undo(done=PotBroken)
            def smash(self) -> BreakPot:
                return BreakPot(pot=self.pot, shelf=self.shelf)


def test_an_undo_may_need_what_an_answer_sets() -> None:
    class Pot(Potter, starts_on=KilnLit, key="pot"):
        shelf: str | None = None

        @step(done=PotFired, failed=PotCracked)
        def fire(self) -> FirePot:
            return FirePot(pot=self.pot)

        @fire.on(PotFired)
        def shelve(self, event: PotFired) -> None:
            self.shelf = "upper"

        @fire.undo(done=PotBroken)
        def smash(self) -> BreakPot:
            return BreakPot(pot=self.pot, shelf=self.shelf)

    assert list(definition_of(Pot).steps) == ["fire"]


def test_a_step_that_is_never_reached_is_refused() -> None:
    with pytest.raises(DefinitionError, match="fire names no done=, so glaze is never reached"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(failed=PotCracked)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @step(done=PotGlazed, timeout=MINUTE)
            def glaze(self) -> GlazePot:
                return GlazePot(pot=self.pot)


def test_an_answer_that_two_steps_wait_for_is_refused() -> None:
    with pytest.raises(DefinitionError, match="maps PotFired twice, in fire and in glaze"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, timeout=MINUTE)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @step(done=PotFired, timeout=MINUTE)
            def glaze(self) -> GlazePot:
                return GlazePot(pot=self.pot)


def test_a_message_that_does_not_say_for_which_saga_it_is_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"which saga PotNamed is for.* keys="):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotNamed, timeout=MINUTE)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)


def test_another_name_for_the_key_can_be_given() -> None:
    class Pot(Potter, starts_on=KilnLit, key="pot", keys={PotNamed: "name"}):
        @step(done=PotNamed, timeout=MINUTE)
        def fire(self) -> FirePot:
            return FirePot(pot=self.pot)

    assert definition_of(Pot).key_of(PotNamed(name="p-1")) == "p-1"


def test_a_saga_without_a_beginning_is_refused() -> None:
    with pytest.raises(DefinitionError, match="write a class method begin"):

        class Pot(Saga, starts_on=KilnLit, key="pot"):
            pot: str

            @step(done=PotFired, timeout=MINUTE)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)


def test_an_undo_after_the_point_of_no_return_is_refused() -> None:
    with pytest.raises(DefinitionError, match="undoes glaze by smash, which stands after the poi"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, timeout=MINUTE, pivot=True)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @step(done=PotGlazed, timeout=MINUTE)
            def glaze(self) -> GlazePot:
                return GlazePot(pot=self.pot)

            @glaze.undo(done=PotBroken)
            def smash(self) -> BreakPot:
                return BreakPot(pot=self.pot)


def test_a_step_beside_the_point_of_no_return_is_refused() -> None:
    with pytest.raises(DefinitionError, match="has the step glaze beside its point of no return"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step()
            def light(self) -> None: ...

            @step(done=PotFired, timeout=MINUTE, pivot=True, after=light)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @step(done=PotGlazed, timeout=MINUTE, after=light)
            def glaze(self) -> GlazePot:
                return GlazePot(pot=self.pot)


def test_a_method_that_returns_what_is_no_message_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Pot\.fire returns str, which is neither"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, timeout=MINUTE)
            def fire(self) -> str:
                return "fire"


def test_a_saga_of_a_service_without_a_table_is_refused() -> None:
    potter = Service("potter", table=None)
    with pytest.raises(DefinitionError, match="is kept in the table of 'potter', which has none"):

        class Pot(Fired, service=potter, starts_on=KilnLit, key="pot"): ...


def test_a_saga_that_is_forgotten_while_a_message_may_come_again_is_refused() -> None:
    potter = Service("potter")
    with pytest.raises(DefinitionError, match=r"may come again within 23: .* Make retention long"):

        class Pot(
            Fired, service=potter, starts_on=KilnLit, key="pot", retention=timedelta(days=23)
        ): ...


def test_where_queues_keep_messages_for_less_a_saga_may_be_forgotten_sooner() -> None:
    day = timedelta(days=1)
    settings = QueueSettings(retention=day, dead_letter_retention=2 * day)
    potter = Service("potter", queues=settings)

    class Pot(Fired, service=potter, starts_on=KilnLit, key="pot", retention=6 * day): ...

    assert definition_of(Pot).retention == 6 * day


def test_two_sagas_of_one_name_and_version_are_refused() -> None:
    potter = Service("potter")

    class Pot(Fired, service=potter, starts_on=KilnLit, key="pot"): ...

    with pytest.raises(DefinitionError, match=r"both version 1 .* version=2"):

        class Vase(Fired, service=potter, starts_on=KilnLit, key="pot", name="pot"): ...


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"key": "jug"}, "has the key 'jug', which is not a field of it"),
        ({"starts_on": ()}, "is started by nothing"),
        ({"version": 0}, "versions are numbers from 1"),
        ({"deadline": timedelta(0)}, "deadline that is over before it begins"),
        ({"keys": {PotGlazed: "pot"}}, "a key for PotGlazed, which it does not take"),
    ],
)
def test_what_a_class_says_of_itself_is_checked(options: dict[str, object], what: str) -> None:
    given: dict[str, object] = {"starts_on": KilnLit, "key": "pot", **options}
    with pytest.raises(DefinitionError, match=what):

        class Pot(Fired, **given): ...


def test_what_a_handler_may_not_both_do_is_refused() -> None:
    with pytest.raises(DefinitionError, match="maps PotFired in fire, and also begins with it"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, failed=PotCracked)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @on(PotFired)
            def fired(self, event: PotFired) -> Abort | None: ...


def test_an_answer_for_what_cannot_time_out_is_refused() -> None:
    with pytest.raises(DefinitionError, match="has cold for the time when fire is not answered"):

        class Pot(Potter, starts_on=KilnLit, key="pot"):
            @step(done=PotFired, failed=PotCracked)
            def fire(self) -> FirePot:
                return FirePot(pot=self.pot)

            @fire.on(TimedOut)
            def cold(self, event: TimedOut) -> None: ...
