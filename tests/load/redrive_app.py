"""A service whose handler fails in three ways as long as it is not mended; what cannot be decoded
is a fourth. The processes of `tests.load.redrive` load it too, to read its dead letters."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from headrace import Entity, Event, Metadata, PoisonMessage, Policy, Service, Transaction

Cause: TypeAlias = Literal["stamp", "ink", "archive"]

MENDED: Final[set[Cause]] = set()


class FormFiled(Event, source="load.redrive"):
    number: int
    cause: Cause


class Form(Entity, pk="form#{number}"):
    """How often an event took effect."""

    number: str
    times: int = 0


# Nothing is tried twice, and a worker does not slow down as it does when all fail unexpectedly.
clerks = Service("clerks", policy=Policy(dead_letter=(RuntimeError, LookupError)))


@clerks.on(FormFiled)
async def stamp(event: FormFiled, metadata: Metadata, tx: Transaction) -> None:
    if event.cause not in MENDED:
        _fail(event)
    form = await tx.get(Form, str(event.number)) or Form(number=str(event.number))
    tx.put(form.model_copy(update={"times": form.times + 1}))


def _fail(event: FormFiled) -> None:
    match event.cause:
        case "stamp":
            raise RuntimeError(f"There is no stamp for {event.number}.")
        case "ink":
            raise PoisonMessage(f"The ink of {event.number} is gone.")
        case "archive":
            raise _look_up(event)


def _look_up(event: FormFiled) -> LookupError:
    return LookupError(f"There is no file for {event.number}.")
