"""What must hold in every run, and the user's own invariants."""

from __future__ import annotations

import asyncio
import inspect

from headrace.ports import QueueEntry
from headrace.record import KEY_PREFIX
from headrace.testing.letters import letter_of
from headrace.testing.letters import name_of as type_of
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.plan import Invariant, Scenario, Setting, Wrong
from headrace.testing.simulation.watch import Watch
from headrace.testing.simulation.wording import ids_in
from headrace.testing.simulation.world import World


class Checks:
    """Looks at one run, after every write and in the end. `verdict` ends it at once."""

    def __init__(
        self,
        setting: Setting,
        world: World,
        cloud: Cloud,
        watch: Watch,
        verdict: asyncio.Future[Wrong],
    ) -> None:
        self._setting = setting
        self._world = world
        self._cloud = cloud
        self._watch = watch
        self._verdict = verdict

    def after_a_write(self) -> None:
        """Gives the verdict, if an invariant does not hold now."""
        if self._verdict.done():
            return
        for invariant in self._setting.always:
            try:
                answer = invariant(self._world)
                if answer is not None:
                    if inspect.iscoroutine(answer):
                        answer.close()
                    raise TypeError("What is looked at after every write cannot be awaited.")
            except AssertionError as error:
                self._verdict.set_result(broken(name_of(invariant), error))
                return
            except Exception as error:  # a mistake in the invariant: whoever wrote it hears of it
                self._verdict.set_exception(error)
                return

    async def in_the_end(self) -> Wrong | None:
        """What does not hold once everything is settled."""
        for found in (self._twice(), self._letters()):
            if found is not None:
                return found
        for invariant in self._setting.invariants:
            try:
                answer = invariant(self._world)
                if inspect.isawaitable(answer):
                    await answer
            except AssertionError as error:
                return broken(name_of(invariant), error)
        return self._verdict.result() if self._verdict.done() else None

    def _twice(self) -> Wrong | None:
        """Whether an event took effect twice in a handler: two commits made its record, or two of
        its deliveries were each handled as the first one."""
        for key, commits in self._cloud.store.commits.items():
            if len(commits) > 1:
                consumer, _, id = key.removeprefix(KEY_PREFIX).rpartition("#")
                return _took_effect(id, len(commits), consumer)
        for (service, queue, body), count in self._watch.effects().items():
            if count > 1 and self._has_one_record(service, queue, body):
                return _took_effect(" ".join(ids_in(body)[:1]), count, service)
        return None

    def _has_one_record(self, name: str, queue: str, body: str) -> bool:
        """Whether exactly one handler takes this message, and always keeps a record of it."""
        for service in self._world.services:
            if service.name == name:
                message = letter_of(service, queue, QueueEntry(body)).message
                takers = [
                    handler
                    for handler in service.handlers_of(queue)
                    if message is not None and handler.accepts(message)
                ]
                if len(takers) != 1 or takers[0].idempotent or takers[0].pure:
                    return False
        return True

    def _letters(self) -> Wrong | None:
        letters = self._world.dead_letters()
        for letter in letters:
            poisonous = letter.body in self._world.poison
            if not poisonous and not self._setting.expected_letter(letter):
                id = " ".join(ids_in(letter.body)[:1])
                what = f"{type_of(letter.body)} ({id})" if id else type_of(letter.body)
                sentence = f"{what} is a dead letter of {letter.queue!r}: {letter.reason}"
                return Wrong("dead letters", sentence)
        bodies = {letter.body for letter in letters}
        for body in self._world.poison:
            if body not in bodies:
                return Wrong("dead letters", f"The message {body!r} was lost: it is nowhere.")
        return None


def broken(name: str, error: AssertionError) -> Wrong:
    """What an assertion says is wrong."""
    said = str(error).strip() or "it does not hold."
    return Wrong(name, said, error)


def name_of(said: Invariant | Scenario) -> str:
    """What a function that asserts something is called in a sentence."""
    return getattr(said, "__name__", repr(said)).replace("_", " ")


def _took_effect(id: str, times: int, where: str) -> Wrong:
    return Wrong("exactly once", f"The event {id} took effect {times} times in {where!r}.")
