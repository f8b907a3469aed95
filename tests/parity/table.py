"""The table: what is sent, and what has to come of it, the same on Lambda, on the worker and in
memory.

Where a case does not say otherwise: what is acked in the end has run once, is recorded as done, and
its one message is out once; anything else has run once, is not recorded, and nothing of it is out.
An account that a case does not name is not there. How to read a fault stands in `faults`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tests.parity.app import AN_HOUR
from tests.parity.bodies import (
    direct,
    foreign,
    from_elsewhere,
    misshapen,
    naked,
    notified,
    notified_payload,
    of_type,
    of_version,
    payload,
)
from tests.parity.case import (
    ACKED,
    CUT_SHORT,
    DEAD,
    DELETING,
    DONE,
    LATER,
    LEASED,
    NONE,
    ONE_OR_TWO,
    PENDING,
    SOON,
    Case,
    Copy,
    Note,
    Sent,
    given_up,
)
from tests.parity.contracts import (
    Book,
    Booked,
    BookedAbove,
    BookedAnew,
    BookedInOrder,
    BookedInTime,
    BookedInWaiting,
    BookedPlainly,
    BookedPlainlyInTime,
    BookedPlainlyUnderLease,
    BookedTwice,
    BookedUnderLease,
)

DIFFERENCES: Final = (CUT_SHORT, DELETING)
"""All that is not the same. A case that has to do with one names it, and expects the same."""

CASES: Final = (
    # --- what a handler can come to --------------------------------------------------------------
    Case(
        "what a handler writes and returns is committed and sent",
        [Sent(Booked(), ACKED)],
        accounts={"A": "a"},
    ),
    Case(
        "a handler that writes and sends nothing leaves its record alone",
        [Sent(Booked(do=["rest"]), ACKED, out=())],
    ),
    Case(
        "a write without an event",
        [Sent(Booked(do=["book_quietly"]), ACKED, out=())],
        accounts={"A": "a"},
    ),
    Case("an event without a write", [Sent(Booked(do=["announce"]), ACKED)]),
    Case(
        "two events of one handler have ids of their own",
        [Sent(Booked(do=["announce_twice"]), ACKED, out=(1, 1))],
        accounts={"A": "a"},
    ),
    Case(
        "a command goes to the queue of its owner",
        [Sent(Booked(do=["remind"]), ACKED)],
        accounts={"A": "a"},
    ),
    Case(
        "an exception leaves nothing behind, and the message comes again after the backoff",
        [Sent(Booked(do=["fail"]), LATER, hidden=AN_HOUR)],
    ),
    Case(
        "what failed once is handled when it comes again",
        [Sent(Booked(do=["fail", "book"]), [LATER, ACKED], runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "RetryLater names the delay",
        [Sent(Booked(do=["retry_in_two_hours"]), LATER, hidden=timedelta(hours=2))],
    ),
    Case(
        "RetryLater for longer than SQS hides a message comes again a little sooner than it ends",
        [Sent(Booked(do=["retry_in_two_days"]), LATER, hidden=timedelta(hours=11.5))],
    ),
    Case(
        "RetryLater without a delay has that of the policy",
        [Sent(Booked(do=["retry"]), LATER, hidden=AN_HOUR)],
    ),
    Case(
        "RetryLater with no delay at all comes again at once",
        [Sent(Booked(do=["retry_at_once"]), SOON)],
    ),
    Case(
        "a poison message is a dead letter at once",
        [
            Sent(
                Booked(do=["poison"]),
                DEAD,
                note=Note(handler="books.book", reason="never to be booked"),
            )
        ],
    ),
    Case(
        "an exception that the policy names is a dead letter at once",
        [
            Sent(
                Booked(do=["forge"]),
                DEAD,
                note=Note(handler="books.book", reason="Forged: a forged signature"),
            )
        ],
    ),
    Case(
        "a message that fails at its fifth receive is a dead letter",
        [
            Sent(
                Booked(do=["fail"]),
                DEAD,
                note=given_up("books.book", "RuntimeError: no cover"),
            )
        ],
        received=4,
    ),
    Case(
        "a message that fails at its fourth receive comes again",
        [Sent(Booked(do=["fail"]), LATER, hidden=AN_HOUR)],
        received=3,
    ),
    Case(
        "RetryLater is not counted as a failure",
        [Sent(Booked(do=["retry"]), LATER)],
        received=6,
    ),
    Case(
        "a failure of AWS is not counted as one of the handler",
        [Sent(Booked(), LATER, fault="store-throttles")],
        received=6,
    ),
    # --- what cannot be decoded, and what can ----------------------------------------------------
    Case(
        "a body that is not JSON is a dead letter, and names no handler",
        [Sent("good morning", DEAD, note=Note(handler=None, reason="The body is not JSON: "))],
    ),
    Case(
        "a type that nobody knows is a dead letter",
        [
            Sent(
                Booked(),
                DEAD,
                body=of_type("Lost"),
                runs=0,
                note=Note(
                    handler=None,
                    reason="'Lost' is no event that this service knows",
                ),
            )
        ],
    ),
    Case(
        "a type that is handled on another queue is a dead letter on this one",
        [
            Sent(
                BookedInOrder(),
                DEAD,
                runs=0,
                note=Note(
                    handler=None,
                    reason="BookedInOrder arrived on the queue 'books', where nothing handles it",
                ),
            )
        ],
    ),
    Case(
        "a payload of the wrong shape is a dead letter that names the field",
        [
            Sent(
                Booked(),
                DEAD,
                body=misshapen,
                runs=0,
                note=Note(handler=None, reason="Booked is not valid: do: "),
            )
        ],
    ),
    Case(
        "a newer version is a dead letter",
        [
            Sent(
                Booked(),
                DEAD,
                body=of_version(4),
                runs=0,
                note=Note(
                    handler=None,
                    reason="Booked arrived at version 4, and this service reads up to 3",
                ),
            )
        ],
    ),
    Case(
        "a version that nothing upcasts is a dead letter",
        [
            Sent(
                Booked(),
                DEAD,
                body=of_version(1),
                runs=0,
                note=Note(handler=None, reason="Booked arrived at version 1, and nothing upcasts"),
            )
        ],
    ),
    Case(
        "another source is a dead letter",
        [
            Sent(
                Booked(),
                DEAD,
                body=from_elsewhere,
                runs=0,
                note=Note(handler=None, reason="Booked came from the source 'parity.elsewhere'"),
            )
        ],
    ),
    Case(
        "an older version is upcast and handled",
        [Sent(Booked(), ACKED, body=of_version(2))],
        accounts={"A": "a"},
    ),
    Case(
        "what no filter lets through is acked, and nobody runs",
        [Sent(BookedAbove(amount=100), ACKED, runs=0, inbox=NONE, out=())],
    ),
    Case(
        "what a filter lets through is handled",
        [Sent(BookedAbove(amount=101), ACKED)],
        accounts={"A": "a"},
    ),
    Case(
        "an event by way of SNS is handled",
        [Sent(Booked(), ACKED, body=notified)],
        accounts={"A": "a"},
    ),
    Case(
        "a stranger's payload by way of SNS has SNS's id",
        [Sent(Booked(), ACKED, body=notified_payload)],
        accounts={"A": "a"},
    ),
    Case(
        "a stranger's event by way of EventBridge has EventBridge's id",
        [Sent(Booked(), ACKED, body=foreign)],
        accounts={"A": "a"},
    ),
    Case(
        "a bare payload has the id of its message",
        [Sent(Booked(), ACKED, body=payload)],
        accounts={"A": "a"},
    ),
    Case(
        "metadata and data without an envelope are enough",
        [Sent(Booked(), ACKED, body=naked)],
        accounts={"A": "a"},
    ),
    Case(
        "a dead letter keeps the attributes of its message",
        [
            Sent(
                Booked(do=["poison"]),
                DEAD,
                body=payload,
                note=Note(handler="books.book", reason="never to be booked"),
            )
        ],
    ),
    # --- commands --------------------------------------------------------------------------------
    Case(
        "a command is handled like an event",
        [Sent(Book(), ACKED, body=direct)],
        accounts={"A": "a"},
    ),
    Case(
        "a command can be poison",
        [
            Sent(
                Book(do=["poison"]),
                DEAD,
                body=direct,
                note=Note(handler="books.obey", reason="never to be booked"),
            )
        ],
    ),
    # --- how a handler can fail ------------------------------------------------------------------
    Case(
        "a plain function is a handler like another",
        [Sent(BookedPlainly(), ACKED)],
        accounts={"A": "a"},
    ),
    Case(
        "a plain function that raises leaves nothing behind",
        [Sent(BookedPlainly(do=["fail"]), LATER, hidden=AN_HOUR)],
    ),
    Case(
        "a plain function can say that a message is poison",
        [
            Sent(
                BookedPlainly(do=["poison"]),
                DEAD,
                note=Note(handler="books.book_plainly", reason="never to be booked"),
            )
        ],
    ),
    Case(
        "SystemExit ends its handler, and neither the host nor the rest of the batch",
        [
            Sent(Booked(account="B"), ACKED),
            Sent(
                Booked(do=["exit"]),
                [LATER, DEAD],
                runs=2,
                note=given_up("books.book", "The handler raised SystemExit(3)."),
            ),
            Sent(Booked(account="C"), ACKED),
        ],
        accounts={"B": "a", "C": "c"},
        received=3,
    ),
    Case(
        "SystemExit in a plain function does no more harm",
        [
            Sent(
                BookedPlainly(do=["exit"]),
                [LATER, DEAD],
                runs=2,
                note=given_up("books.book_plainly", "The handler raised SystemExit(3)."),
            ),
            Sent(BookedPlainly(account="B"), ACKED),
        ],
        accounts={"B": "b"},
        received=3,
    ),
    Case(
        "GeneratorExit ends its handler, and not the rest of the batch",
        [
            Sent(
                Booked(do=["close"]),
                [LATER, DEAD],
                runs=2,
                note=given_up("books.book", "The handler raised GeneratorExit."),
            ),
            Sent(Booked(account="B"), ACKED),
        ],
        accounts={"B": "b"},
        received=3,
    ),
    Case(
        "a handler that awaits what was cancelled has failed, and was not cancelled itself",
        [
            Sent(
                Booked(do=["cancel"]),
                [LATER, DEAD],
                runs=2,
                note=given_up("books.book", "The handler awaited a task that was cancelled."),
            ),
            Sent(Booked(account="B"), ACKED),
        ],
        accounts={"B": "b"},
        received=3,
    ),
    Case(
        "an exception that cannot be printed is one like another",
        [Sent(Booked(do=["fail_unspeakably"]), LATER), Sent(Booked(account="B"), ACKED)],
        accounts={"B": "b"},
    ),
    Case(
        "poison in a group of exceptions decides",
        [
            Sent(
                Booked(do=["fail_in_a_group"]),
                DEAD,
                note=Note(handler="books.book", reason="never"),
            )
        ],
    ),
    Case(
        "an event that is not declared is not published, and what goes with it not written",
        [
            Sent(
                Booked(do=["publish_unannounced"]),
                [LATER, DEAD],
                runs=2,
                note=given_up("books.book", "The handler books.book publishes Unannounced"),
            ),
        ],
        received=3,
    ),
    Case(
        "an item that is too large is a dead letter",
        [
            Sent(
                Booked(do=["write_too_much"]),
                DEAD,
                note=Note(handler="books.book", reason="bytes: a DynamoDB item holds 409,600"),
            )
        ],
    ),
    Case(
        "more writes than a transaction takes are a dead letter",
        [
            Sent(
                Booked(do=["write_too_many"]),
                DEAD,
                note=Note(handler="books.book", reason="The handler writes 101 items"),
            )
        ],
    ),
    Case(
        "a handler that exceeds its own timeout is cancelled and tried again",
        [
            Sent(
                BookedInTime(do=["hang"]),
                [LATER, DEAD],
                runs=2,
                note=given_up(
                    "books.book_in_time", "TimeoutError: It ran longer than its timeout of 0.05 s."
                ),
            ),
        ],
        received=3,
    ),
    Case(
        "a plain function that exceeds its own timeout commits nothing",
        [
            Sent(
                BookedPlainlyInTime(do=["hang"]),
                [LATER, DEAD],
                runs=2,
                note=given_up(
                    "books.book_plainly_in_time",
                    "TimeoutError: It ran longer than its timeout of 0.05 s.",
                ),
            ),
        ],
        received=3,
    ),
    # --- batches ---------------------------------------------------------------------------------
    Case(
        "a full batch of ten",
        [Sent(Booked(account=account), ACKED) for account in "ABCDEFGHIJ"],
        accounts=dict(zip("ABCDEFGHIJ", "abcdefghij", strict=True)),
    ),
    Case(
        "a full batch of ten that all fail",
        [Sent(Booked(account=account, do=["fail"]), LATER) for account in "ABCDEFGHIJ"],
    ),
    Case(
        "every message of a batch meets its own fate",
        [
            Sent(Booked(account="A"), ACKED),
            Sent("good morning", DEAD, note=Note(handler=None, reason="The body is not JSON")),
            Sent(Booked(account="B", do=["fail"]), LATER),
            Sent(BookedPlainly(account="C"), ACKED),
            Sent(
                Booked(account="D", do=["poison"]),
                DEAD,
                note=Note(handler="books.book", reason="never"),
            ),
            Sent(Booked(account="E", do=["retry_at_once"]), SOON),
            Sent(Book(account="F"), ACKED, body=direct),
            Sent(BookedInTime(account="G", do=["hang"]), LATER),
            Sent(Booked(account="H", do=["rest"]), ACKED, out=()),
            Sent(Booked(account="I"), ACKED),
        ],
        accounts={"A": "a", "C": "d", "F": "g", "I": "j"},
    ),
    Case(
        "two copies of one event in one batch take effect once",
        [
            Sent(Booked(do=["book_together"]), ACKED, runs=2, out=(ONE_OR_TWO,)),
            Copy("a", ACKED),
        ],
        accounts={"A": "a"},
    ),
    Case(
        "a copy that comes later is known, and nothing is sent again",
        [Sent(Booked(), ACKED, runs=2), Copy("a", ACKED, sent_in=2)],
        accounts={"A": "a"},
    ),
    Case(
        "two copies of poison are two dead letters",
        [
            Sent(
                Booked(do=["poison"]), DEAD, runs=2, note=Note(handler="books.book", reason="never")
            ),
            Copy("a", DEAD),
        ],
    ),
    Case(
        "two events that have read the same item both take effect, one after the other",
        [
            Sent(Booked(do=["book_together"]), ACKED, runs=ONE_OR_TWO),
            Sent(Booked(do=["book_together"]), ACKED, runs=ONE_OR_TWO),
        ],
        accounts={"A": "a b"},
    ),
    Case(
        "a handler that another writer overtakes runs again on what is there now",
        [Sent(Booked(), ACKED, fault="store-overtakes*1", runs=2)],
        accounts={"A": "stranger a"},
    ),
    Case(
        "a handler that is overtaken time and again comes again",
        [Sent(Booked(), LATER, fault="store-overtakes", runs=8, hidden=AN_HOUR)],
        accounts={"A": "stranger " * 8},
    ),
    Case(
        "two handlers of one event each take effect",
        [Sent(BookedTwice(), ACKED)],
        accounts={"A": "a", "A-2": "a"},
    ),
    Case(
        "of two handlers of one event only the one that failed takes effect when it comes again",
        [
            Sent(
                BookedTwice(second=["fail", "book"]),
                [LATER, ACKED],
                runs=2,
            )
        ],
        accounts={"A": "a", "A-2": "a"},
    ),
    Case(
        "what one of two handlers has done stands, though the other gives up",
        [
            Sent(
                BookedTwice(second=["poison"]),
                DEAD,
                inbox={"book_first": DONE, "book_second": NONE},
                out={"book_first": (1,), "book_second": ()},
                note=Note(handler="books.book_second", reason="never"),
            )
        ],
        accounts={"A": "a"},
    ),
    Case(
        "as long as one of two handlers may succeed, the other's poison waits",
        [
            Sent(
                BookedTwice(do=["poison"], second=["fail", "book"]),
                [LATER, DEAD],
                runs=2,
                inbox={"book_first": NONE, "book_second": DONE},
                out={"book_first": (), "book_second": (1,)},
                note=Note(handler="books.book_first", reason="never", attempts=2),
            )
        ],
        accounts={"A-2": "a"},
    ),
    # --- commits that fail -----------------------------------------------------------------------
    Case(
        "a transaction that is refused comes again, and those it went with do not suffer",
        [
            Sent(Booked(account="A"), ACKED),
            Sent(Booked(account="B"), LATER, fault="store-refuses", hidden=AN_HOUR),
            Sent(Booked(account="C"), ACKED),
        ],
        accounts={"A": "a", "C": "c"},
    ),
    Case(
        "a record that is refused, where there is nothing else to write",
        [Sent(Booked(do=["rest"]), LATER, fault="store-refuses", hidden=AN_HOUR)],
    ),
    Case(
        "a transaction that is throttled goes through when the message comes again",
        [Sent(Booked(), [LATER, ACKED], fault="store-throttles@1", runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "a commit whose answer is lost is found and finished",
        [Sent(Booked(), ACKED, fault="store-loses*1")],
        accounts={"A": "a"},
    ),
    Case(
        "a record whose answer is lost is found too",
        [Sent(Booked(do=["rest"]), ACKED, fault="store-loses*1", out=())],
    ),
    Case(
        "a commit after which nothing answers any more is finished when the message comes again",
        [Sent(Booked(), [LATER, ACKED], fault="store-goes@1", runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "as long as the table does not answer, the message comes again",
        [Sent(Booked(), [LATER, LATER], fault="store-down", runs=2)],
    ),
    Case(
        "the note that everything is out can be lost, and costs only that it is sent again",
        [
            Sent(Booked(), ACKED, fault="mark-down@1", inbox=PENDING, out=(2,), runs=2),
            Copy("a", ACKED, sent_in=2),
        ],
        accounts={"A": "a"},
    ),
    Case(
        "the note that everything is out can be left unprocessed",
        [Sent(Booked(), ACKED, fault="mark-busy", inbox=PENDING)],
        accounts={"A": "a"},
    ),
    # --- sending that fails ----------------------------------------------------------------------
    Case(
        "what the bus refuses stays pending, beside what it takes",
        [
            Sent(Booked(account="A"), ACKED),
            Sent(Booked(account="B"), LATER, fault="bus-refuses", inbox=PENDING, hidden=AN_HOUR),
        ],
        accounts={"A": "a", "B": "b"},
    ),
    Case(
        "what the bus refused is sent when the message comes again, as it was committed",
        [Sent(Booked(), [LATER, ACKED], fault="bus-refuses@1", runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "what the bus throttles once is sent in the same delivery",
        [Sent(Booked(), ACKED, fault="bus-throttles*1")],
        accounts={"A": "a"},
    ),
    Case(
        "what was committed while the bus was down is sent when the message comes again",
        [Sent(Booked(), [LATER, ACKED], fault="bus-down@1", runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "an answer of the bus that is lost makes two events with one id",
        [Sent(Booked(), ACKED, fault="bus-loses*1", out=(2,))],
        accounts={"A": "a"},
    ),
    Case(
        "a command that its owner's queue refuses is sent when the message comes again",
        [Sent(Booked(do=["remind"]), [LATER, ACKED], fault="send-refuses@1", runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "a command that its owner's queue throttles once is sent in the same delivery",
        [Sent(Booked(do=["remind"]), ACKED, fault="send-throttles*1")],
        accounts={"A": "a"},
    ),
    # --- settling that fails ---------------------------------------------------------------------
    Case(
        "a message that is not deleted comes again, without a second effect",
        [Sent(Booked(), [LATER, ACKED], fault="delete-refuses@1", runs=2)],
        accounts={"A": "a"},
        difference=DELETING,
    ),
    Case(
        "a delete that is not answered leaves the message, without a second effect",
        [Sent(Booked(), [LATER, ACKED], fault="delete-down@1", runs=2)],
        accounts={"A": "a"},
        difference=DELETING,
    ),
    Case(
        "a dead letter that is not deleted makes a second one, and never none",
        [
            Sent(
                "good morning",
                [LATER, DEAD],
                fault="delete-refuses@1",
                letters=2,
                note=Note(handler=None, reason="The body is not JSON", attempts=2),
            )
        ],
        difference=DELETING,
    ),
    Case(
        "a message whose visibility is not changed comes again when it ends",
        [Sent(Booked(do=["retry_at_once"]), LATER, fault="hide-refuses")],
    ),
    Case(
        "a change of visibility that is not answered does no harm",
        [Sent(Booked(do=["fail", "book"]), [LATER, ACKED], fault="hide-down@1", runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "a dead letter that is not taken is kept, and is one when the message comes again",
        [
            Sent(
                Booked(do=["poison"]),
                [LATER, DEAD],
                fault="letter-refuses@1",
                runs=2,
                note=Note(handler="books.book", reason="never", attempts=2),
            ),
            Sent("good evening", DEAD, note=Note(handler=None, reason="The body is not JSON")),
        ],
    ),
    Case(
        "while the dead-letter queue does not answer, the message is kept",
        [
            Sent(
                "good morning",
                [LATER, DEAD],
                fault="letter-down@1",
                note=Note(handler=None, reason="The body is not JSON", attempts=2),
            )
        ],
    ),
    # --- FIFO ------------------------------------------------------------------------------------
    Case(
        "the messages of a group are handled in order",
        [Sent(BookedInOrder(account=name), ACKED, group=name) for name in "AABABBA"],
        accounts={"A": "a b d g", "B": "c e f"},
    ),
    Case(
        "a failing message holds back those behind it in its group, and no other group",
        [
            Sent(BookedInOrder(), ACKED, group="A"),
            Sent(BookedInOrder(do=["fail"]), LATER, group="A", hidden=AN_HOUR),
            Sent(BookedInOrder(), SOON, group="A", runs=0),
            Sent(BookedInOrder(), SOON, group="A", runs=0),
            Sent(BookedInOrder(account="B"), ACKED, group="B"),
            Sent(BookedInOrder(account="B"), ACKED, group="B"),
        ],
        accounts={"A": "a", "B": "e f"},
    ),
    Case(
        "what was held back is handled in order once what failed is done",
        [
            Sent(BookedInOrder(do=["fail", "book"]), [LATER, ACKED], group="A", runs=2),
            Sent(BookedInOrder(), [SOON, ACKED], group="A"),
            Sent(BookedInOrder(), [SOON, ACKED], group="A"),
        ],
        accounts={"A": "a b c"},
    ),
    Case(
        "two copies of one event in one group take effect once",
        [Sent(BookedInOrder(), ACKED, group="A", runs=2), Copy("a", ACKED)],
        accounts={"A": "a"},
    ),
    Case(
        "the queues of one service do not wait for each other",
        [
            Sent(BookedInOrder(), ACKED, group="A"),
            Sent(BookedInOrder(do=["fail"]), LATER, group="A"),
            Sent(BookedInOrder(), SOON, group="A", runs=0),
            Sent(Booked(account="B", do=["fail"]), LATER),
            Sent(Booked(account="C"), ACKED),
        ],
        accounts={"A": "a", "C": "e"},
    ),
    Case(
        "RetryLater holds its group back too",
        [
            Sent(BookedInOrder(do=["retry_in_two_hours"]), LATER, group="A"),
            Sent(BookedInOrder(), SOON, group="A", runs=0),
            Sent(BookedInOrder(account="B"), ACKED, group="B"),
        ],
        accounts={"B": "c"},
    ),
    Case(
        "a dead letter holds nobody back, and stays in its group",
        [
            Sent(
                BookedInOrder(do=["poison"]),
                DEAD,
                group="A",
                note=Note(handler="books.book_in_order", reason="never"),
            ),
            Sent(BookedInOrder(), ACKED, group="A"),
            Sent(
                "good morning",
                DEAD,
                group="A",
                note=Note(handler=None, reason="The body is not JSON"),
            ),
            Sent(BookedInOrder(), ACKED, group="A"),
        ],
        accounts={"A": "b d"},
    ),
    Case(
        "in a FIFO group a message is given up one receive before the queue's limit",
        [
            Sent(
                BookedInOrder(do=["fail"]),
                DEAD,
                group="A",
                note=Note(
                    handler="books.book_in_order",
                    reason="Gave up after 9 receives: RuntimeError: no cover",
                    attempts=9,
                ),
            ),
            Sent(BookedInOrder(), ACKED, group="A"),
        ],
        accounts={"A": "b"},
        received=8,
    ),
    Case(
        "in a FIFO group a message is not given up at the policy's attempts",
        [
            Sent(BookedInOrder(do=["fail"]), LATER, group="A"),
            Sent(BookedInOrder(), SOON, group="A", runs=0),
        ],
        received=5,
    ),
    Case(
        "what is committed and not sent holds its group back",
        [
            Sent(BookedInOrder(), [LATER, ACKED], group="A", fault="bus-refuses@1", runs=2),
            Sent(BookedInOrder(), [SOON, ACKED], group="A"),
        ],
        accounts={"A": "a b"},
    ),
    Case(
        "a dead letter that is not taken holds its group back",
        [
            Sent(
                "good morning",
                [LATER, DEAD],
                group="A",
                fault="letter-refuses@1",
                note=Note(handler=None, reason="The body is not JSON", attempts=2),
            ),
            Sent(BookedInOrder(), [SOON, ACKED], group="A"),
        ],
        accounts={"A": "b"},
    ),
    # --- what does not end -----------------------------------------------------------------------
    Case(
        "a handler that does not end is cut short, commits nothing, and others are not affected",
        [
            Sent(Booked(account="A"), ACKED),
            Sent(Booked(account="B", do=["hang"]), SOON),
            Sent(Booked(account="C"), ACKED),
        ],
        accounts={"A": "a", "C": "c"},
        difference=CUT_SHORT,
    ),
    Case(
        "what was cut short is handled when it comes again",
        [Sent(Booked(do=["hang", "book"]), [SOON, ACKED], runs=2)],
        accounts={"A": "a"},
        difference=CUT_SHORT,
    ),
    Case(
        "a plain function that does not end is left behind, and commits nothing",
        [Sent(BookedPlainly(do=["hang"]), SOON), Sent(Booked(account="B"), ACKED)],
        accounts={"B": "b"},
        difference=CUT_SHORT,
    ),
    Case(
        "a handler that catches its cancellation is left behind, and others are not affected",
        [Sent(Booked(do=["hang_on"]), SOON), Sent(Booked(account="B"), ACKED)],
        accounts={"B": "b"},
        difference=CUT_SHORT,
    ),
    Case(
        "what is cut short holds back its group",
        [
            Sent(BookedInOrder(do=["hang"]), SOON, group="A"),
            Sent(BookedInOrder(), SOON, group="A", runs=0),
            Sent(BookedInOrder(account="B"), ACKED, group="B"),
        ],
        accounts={"B": "c"},
        difference=CUT_SHORT,
    ),
    Case(
        "a commit whose answer never comes stands, and is finished when the message comes again",
        [Sent(Booked(), [SOON, ACKED], fault="store-hangs@1", runs=2)],
        accounts={"A": "a"},
        difference=CUT_SHORT,
    ),
    Case(
        "an event whose answer never comes is out, and goes out again with the same id",
        [Sent(Booked(), [SOON, ACKED], fault="bus-hangs@1", runs=2, out=(2,))],
        accounts={"A": "a"},
        difference=CUT_SHORT,
    ),
    # --- leases ----------------------------------------------------------------------------------
    Case(
        "a leased handler completes its lease",
        [Sent(BookedUnderLease(), ACKED)],
        accounts={"A": "a"},
    ),
    Case(
        "a leased handler that fails lets go of its lease",
        [Sent(BookedUnderLease(do=["fail", "book"]), [LATER, ACKED], runs=2)],
        accounts={"A": "a"},
    ),
    Case(
        "under a lease failures are counted, and not receives",
        [Sent(BookedUnderLease(do=["fail"]), LATER, inbox=LEASED, hidden=AN_HOUR)],
        received=6,
    ),
    Case(
        "poison under a lease",
        [
            Sent(
                BookedUnderLease(do=["poison"]),
                DEAD,
                inbox=LEASED,
                note=Note(handler="books.book_under_lease", reason="never"),
            )
        ],
    ),
    Case(
        "while a lease is held, a copy comes again when it is over, and is known then",
        [
            Sent(BookedUnderLease(do=["book_when_refused"]), ACKED, hidden=None),
            Copy("a", [LATER, ACKED]),
        ],
        accounts={"A": "a"},
    ),
    Case(
        "where it is to wait, a copy waits for the lease",
        [
            Sent(BookedInWaiting(do=["book_when_refused"]), ACKED, out=(ONE_OR_TWO,)),
            Copy("a", ACKED),
        ],
        accounts={"A": "a"},
    ),
    Case(
        "a lease that cannot be taken",
        [Sent(BookedUnderLease(), LATER, fault="store-down", runs=0, hidden=AN_HOUR)],
    ),
    Case(
        "a leased handler that is cut short lets the next delivery in at once",
        [Sent(BookedUnderLease(do=["hang", "book"]), [SOON, ACKED], runs=2)],
        accounts={"A": "a"},
        difference=CUT_SHORT,
    ),
    Case(
        "a leased plain function that is still at work keeps the next delivery out",
        [Sent(BookedPlainlyUnderLease(do=["hang", "book"]), [SOON, LATER], inbox=LEASED)],
        difference=CUT_SHORT,
    ),
    # --- handlers that are idempotent ------------------------------------------------------------
    Case(
        "an idempotent handler keeps no record, so a copy takes effect too",
        [
            Sent(BookedAnew(do=["book_quietly"]), ACKED, runs=2, out=()),
            Copy("a", ACKED, sent_in=2),
        ],
        accounts={"A": "a a"},
    ),
    Case(
        "what an idempotent handler says twice has one id",
        [
            Sent(BookedAnew(do=["announce"]), ACKED, runs=2, out=(2,)),
            Copy("a", ACKED, sent_in=2),
        ],
    ),
    Case(
        "an idempotent handler must not both write and publish",
        [
            Sent(
                BookedAnew(),
                [LATER, DEAD],
                runs=2,
                note=given_up(
                    "books.book_anew", "The handler books.book_anew is idempotent=True, and both"
                ),
            ),
        ],
        received=3,
    ),
)
