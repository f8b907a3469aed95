"""Running sagas: the handler that loads one, applies a message, and commits what comes out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import orjson

from headrace.envelope import Metadata
from headrace.errors import DefinitionError, PoisonMessage, RetryLater
from headrace.events import Message
from headrace.observer import SagaChange
from headrace.policy import ELSEWHERE
from headrace.ports import Delivery
from headrace.record import Trail
from headrace.saga.definition import Definition
from headrace.saga.item import SagaItem, item_of, progress_of, trail_of
from headrace.saga.machine import Transition, answered, begin, intervened, woken
from headrace.saga.messages import SagaIntervention, SagaTimer, Signals, signals_of
from headrace.saga.progress import Progress, Status, Timer
from headrace.service import Argument, Handler, Service
from headrace.transaction import Transaction

logger = logging.getLogger(__name__)

KEY_BYTES: Final = 512
"""A key is part of sort keys in the index, for which DynamoDB takes 1,024."""

_ARGUMENTS: Final = MappingProxyType(
    {
        "message": Argument.MESSAGE,
        "tx": Argument.TRANSACTION,
        "metadata": Argument.METADATA,
        "delivery": Argument.DELIVERY,
    }
)


class UnknownVersion(PoisonMessage):
    """A saga in flight was begun by a version that this code does not have."""


class SagaHandler:
    """All versions of one saga: one handler of its service."""

    def __init__(self, service: Service, name: str) -> None:
        self.name = name
        self.service = service
        self.signals: Signals = signals_of(service.name, name)
        self.versions: dict[int, Definition] = {}

    @property
    def consumer(self) -> str:
        return f"{self.service.name}.{self.name}"

    @property
    def newest(self) -> Definition:
        return self.versions[max(self.versions)]

    def add(self, definition: Definition) -> None:
        """Take another version. Raises `DefinitionError`."""
        known = self.versions.get(definition.version)
        if known is not None:
            raise DefinitionError(
                f"{known.cls.__name__} and {definition.cls.__name__} are both version "
                f"{definition.version} of the saga {self.consumer}: give the new one version="
                f"{max(self.versions) + 1}, or another name."
            )
        self.versions[definition.version] = definition
        for message in definition.takes:
            self._refuse_other_key(message, definition)
        self.service.adopt(self._handler(definition))

    def key_of(self, message: Message) -> str:
        """Which saga a message is for; all versions find it in the same place."""
        if isinstance(message, (SagaTimer, SagaIntervention)):
            return message.key
        knows = next(v for v in self.versions.values() if type(message) in v.takes)
        key = knows.key_of(message)
        size, field = len(key.encode()), knows.keys.get(type(message), knows.key)
        if not 0 < size <= KEY_BYTES:
            raise PoisonMessage(
                f"{type(message).__name__} does not say which {self.name} it is for: its {field} "
                f"has {size:,} bytes, and must have 1 to {KEY_BYTES:,}."
            )
        return key

    async def handle(
        self, message: Message, tx: Transaction, metadata: Metadata, delivery: Delivery
    ) -> None:
        """Apply one message to the saga that it is for."""
        key = self.key_of(message)
        item = await tx.get(SagaItem, self.consumer, key)
        if item is None:
            await self._begin(key, message, tx, metadata)
            return
        definition = self._version(item, delivery)
        before = progress_of(definition, item)
        transition = _apply(definition, before, message, tx.now)
        if transition.progress is not before:
            tx.put(item_of(self.consumer, key, definition, transition.progress, tx.now))
        ignored = transition.progress is before
        self._carry_out(key, definition, transition, message, tx, metadata, ignored=ignored)

    async def _begin(self, key: str, message: Message, tx: Transaction, metadata: Metadata) -> None:
        definition = self._begins_with(type(message))
        if definition is None:
            # Long over, or never begun: an answer on the bus may be for somebody else's work.
            if not isinstance(message, SagaTimer):
                logger.info(
                    "%s %s is for a saga %s of %r that is not known here, and is ignored.",
                    type(message).__name__,
                    metadata.id,
                    self.consumer,
                    key,
                )
            return
        transition = begin(definition, message, tx.now)
        held = definition.key_of(message)
        if definition.key_of_state(transition.progress.state) != held:
            raise DefinitionError(
                f"{definition.cls.__name__}.begin made a state whose {definition.key} is not that "
                f"of the {type(message).__name__}, {held!r}: its answers would not find it."
            )
        tx.put(item_of(self.consumer, key, definition, transition.progress, tx.now))
        self._carry_out(key, definition, transition, message, tx, metadata, ignored=False)

    def _carry_out(
        self,
        key: str,
        definition: Definition,
        transition: Transition,
        message: Message,
        tx: Transaction,
        metadata: Metadata,
        *,
        ignored: bool,
    ) -> None:
        tx.publish(*(sent for _, sent in transition.sent))
        if transition.disarm is not None:
            tx.unschedule(self._timer_name(key, transition.disarm))
        if transition.arm is not None:
            self._arm(key, transition.arm, tx)
        after = transition.progress
        if transition.changes:
            note = {
                "turn": after.turn,
                "time": tx.now,
                "event": type(message).__name__,
                "id": metadata.id,
                "status": after.status.value,
                "ignored": ignored,
                "changes": transition.changes,
                "sent": [type(sent).__name__ for _, sent in transition.sent],
            }
            tx.leave_trail(
                Trail(
                    trail_of(self.consumer, key),
                    orjson.dumps(note, option=orjson.OPT_UTC_Z).decode(),
                    definition.retention,
                    tuple(self._remarks(key, transition)),
                )
            )

    def _remarks(self, key: str, transition: Transition) -> Iterator[SagaChange]:
        after = transition.progress
        if after.turn == 1 and transition.became is not None:
            yield SagaChange(self.name, key, "started", None)
        if transition.became not in (None, Status.RUNNING):
            reason = after.trouble or after.reason
            yield SagaChange(self.name, key, str(transition.became), reason)

    def _begins_with(self, message: type[Message]) -> Definition | None:
        """The newest version that begins with such a message: an older one may still come."""
        beginning = [n for n, version in self.versions.items() if message in version.starts_on]
        return self.versions[max(beginning)] if beginning else None

    def _arm(self, key: str, timer: Timer, tx: Transaction) -> None:
        command = self.signals.timer(saga=self.name, key=key, turn=timer.turn, at=timer.at)
        tx.schedule(command, at=timer.at, name=self._timer_name(key, timer.turn))

    def _timer_name(self, key: str, turn: int) -> str:
        """No two timers of any saga have one name."""
        return f"saga-{sha256(f'{self.consumer}#{key}'.encode()).hexdigest()[:24]}-{turn}"

    def _version(self, item: SagaItem, delivery: Delivery) -> Definition:
        definition = self.versions.get(item.version)
        if definition is not None:
            return definition
        known = ", ".join(map(str, sorted(self.versions)))
        what = (
            f"The saga {self.consumer} {item.key!r} was begun by version {item.version}, and "
            f"this code has {known}"
        )
        if delivery.receive_count < self.service.queue_settings.max_receive_count - 1:
            # While a new version is deployed, old and new workers share the queue.
            raise RetryLater(f"{what}: a worker of that version may take it.", delay=ELSEWHERE)
        raise UnknownVersion(
            f"{what}: keep the class of that version until `headrace saga list` shows none of it "
            "any more."
        )

    def _handler(self, definition: Definition) -> Handler:
        versions = self.versions.values()
        takes = dict.fromkeys([cls for v in versions for cls in v.takes])
        return Handler(
            name=self.name,
            service=self.service.name,
            function=self.handle,
            takes=(*takes, *self.signals),
            emits=frozenset(c for v in versions for c in v.sends) | {self.signals.timer},
            arguments=_ARGUMENTS,
            queue=self.service.name,
            policy=self.service.policy,
            pure=True,
        )

    def _refuse_other_key(self, message: type[Message], new: Definition) -> None:
        for known in self.versions.values():
            before = known.keys.get(message, known.key)
            if message in known.takes and before != new.keys.get(message, new.key):
                raise DefinitionError(
                    f"Version {known.version} of the saga {self.consumer} finds its key in "
                    f"{message.__name__}.{before}, and version {new.version} in another field: a "
                    "message must say which saga it is for before the version is known."
                )


def register(service: Service, definition: Definition) -> None:
    """Have a service run a saga, beside other versions of it. Raises `DefinitionError`."""
    if definition.retention <= service.redelivery_horizon:
        raise DefinitionError(
            f"The saga {definition.cls.__name__} is kept for {definition.retention.days} days, and "
            f"a message may come again within {service.redelivery_horizon.days}: an answer that is "
            "later would be for an unknown saga. Make retention longer."
        )
    if service.table is None:
        raise DefinitionError(
            f"The saga {definition.cls.__name__} is kept in the table of {service.name!r}, which "
            'has none: write Service(…, table="…").'
        )
    known = sagas_of(service).get(definition.name)
    (known or SagaHandler(service, definition.name)).add(definition)


def sagas_of(service: Service) -> Mapping[str, SagaHandler]:
    """The sagas of a service, by name."""
    owners = (getattr(handler.function, "__self__", None) for handler in service.handlers)
    return {owner.name: owner for owner in owners if isinstance(owner, SagaHandler)}


def _apply(definition: Definition, before: Progress, message: Message, now: datetime) -> Transition:
    if isinstance(message, SagaTimer):
        return woken(definition, before, message.turn, now)
    if isinstance(message, SagaIntervention):
        return intervened(
            definition, before, message.action, message.by, message.why, now, message.step
        )
    return answered(definition, before, message, now)
