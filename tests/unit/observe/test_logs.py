"""Log lines: what stands on them, whatever was logged, and who writes them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import Annotated, Any

import pytest
from awslambdaric.bootstrap import (  # type: ignore[import-untyped]  # it has no types
    LambdaLoggerFilter,
    LambdaLoggerHandler,
)
from pydantic import SecretStr

from headrace import Event, Sensitive
from headrace.context import Context, bind, bind_delivery, identify
from headrace.envelope import Envelope, root_metadata
from headrace.hosts.settings import ObserveSettings
from headrace.observe.logs import (
    MOST_BYTES,
    DeliveryFields,
    JsonFormatter,
    PayloadLog,
    TextFormatter,
    configure,
)
from headrace.testing.deliveries import delivery_of
from headrace.testing.memory.chance import EPOCH

JSON = ObserveSettings(logs="json")
TEXT = ObserveSettings(logs="text")


class LetterStamped(Event, source="shop.logs"):
    letter_id: str
    email: Annotated[str, Sensitive] = "c@example.com"


LETTER = LetterStamped(letter_id="L1")
METADATA = root_metadata(LETTER, id="e-1", now=EPOCH)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DELIVERY = delivery_of(LETTER, id="e-1", queue="post", receive_count=2)
CONTEXT = Context("post", "stamp", METADATA, DELIVERY, TRACEPARENT)
FIELDS = {
    "service": "post",
    "queue": "post",
    "message_id": "message-e-1",
    "attempt": 2,
    "event": "LetterStamped",
    "event_id": "e-1",
    "correlation_id": "e-1",
    "handler": "stamp",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}


class Journal(logging.Handler):
    """Keeps lines as they were formatted where they were logged."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def last(self) -> dict[str, Any]:
        found = json.loads(self.lines[-1])
        assert isinstance(found, dict)
        return found


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own, which tells nobody else."""
    logger = logging.getLogger("tests.observe")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers.clear()
    logger.propagate = True


@pytest.fixture
def journal(log: logging.Logger) -> Journal:
    journal = Journal(JsonFormatter())
    log.addHandler(journal)
    return journal


# --- the fields of a line ----------------------------------------------------------------


def test_a_line_is_one_object_of_time_level_logger_and_message(
    log: logging.Logger, journal: Journal
) -> None:
    before = datetime.now(UTC)
    log.warning("%d letters", 3)

    line = journal.last
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    written = datetime.fromisoformat(line.pop("timestamp"))
    assert -0.001 <= (written - before).total_seconds() < 60
    assert line == {"level": "WARNING", "logger": "tests.observe", "message": "3 letters"}


def test_a_line_of_a_handler_says_which_delivery_it_is_about(
    log: logging.Logger, journal: Journal
) -> None:
    with bind_delivery("post", DELIVERY), bind(CONTEXT):
        log.info("stamped")
    log.info("nothing to do")

    first, second = map(json.loads, journal.lines)
    assert {name: first.get(name) for name in FIELDS} == FIELDS
    assert list(first)[:4] == ["timestamp", "level", "logger", "message"]
    assert second.keys() & FIELDS.keys() == set()


def test_a_line_between_a_delivery_and_its_handlers_says_what_is_known_by_then(
    log: logging.Logger, journal: Journal
) -> None:
    with bind_delivery("post", DELIVERY):
        log.info("arrived")
        identify(METADATA, TRACEPARENT)
        log.info("read")

    arrived, read = map(json.loads, journal.lines)
    raw = {name: FIELDS[name] for name in ("service", "queue", "message_id", "attempt")}
    assert {name: arrived[name] for name in arrived.keys() & FIELDS.keys()} == raw
    known = {name: value for name, value in FIELDS.items() if name != "handler"}
    assert {name: read[name] for name in read.keys() & FIELDS.keys()} == known


def test_extra_fields_stand_beside_the_others(log: logging.Logger, journal: Journal) -> None:
    log.info("stamped", extra={"stamps": 3, "kinds": ["a", {"b": None}]})
    assert (journal.last["stamps"], journal.last["kinds"]) == (3, ["a", {"b": None}])


def test_an_extra_field_does_not_take_the_place_of_another(
    log: logging.Logger, journal: Journal
) -> None:
    extra = {
        "correlation_id": "another",
        "queue": "post",
        "level": "high",
        "exception": "none",
        "level_": "low",
    }
    with bind(CONTEXT):
        log.info("stamped", extra=extra)

    line = journal.last
    assert (line["correlation_id"], line["correlation_id_"]) == ("e-1", "another")
    assert (line["queue"], "queue_" in line) == ("post", False)
    assert (line["level"], line["level_"], line["level__"]) == ("INFO", "low", "high")
    assert ("exception" in line, line["exception_"]) == (False, "none")


def test_an_extra_field_of_a_delivery_says_so_where_none_is_bound(
    log: logging.Logger, journal: Journal
) -> None:
    log.info("handed back", extra={"message_id": "m-1"})
    assert journal.last["message_id"] == "m-1"


class TooHeavy(Exception):
    pass


def test_an_exception_has_its_type_message_and_stack(log: logging.Logger, journal: Journal) -> None:
    try:
        raise TooHeavy("2 kg")
    except TooHeavy:
        log.exception("not stamped")

    found = journal.last["exception"]
    assert (found["type"], found["message"]) == (f"{__name__}.TooHeavy", "2 kg")
    assert found["stack"].startswith("Traceback (most recent call last):\n")
    assert found["stack"].endswith("TooHeavy: 2 kg")


def test_without_an_exception_nothing_is_said_of_one(log: logging.Logger, journal: Journal) -> None:
    log.info("stamped", exc_info=True)
    assert "exception" not in journal.last


def test_a_stack_that_was_asked_for_is_a_field(log: logging.Logger, journal: Journal) -> None:
    log.info("here", stack_info=True)
    assert "test_a_stack_that_was_asked_for" in journal.last["stack"]


# --- whatever was logged -----------------------------------------------------------------


def test_nothing_that_a_message_holds_ends_its_line(log: logging.Logger, journal: Journal) -> None:
    text = "".join(map(chr, range(0x20))) + '"\\\x7f\x85\x9f\u2028\u2029é\U0001f4ec'
    log.info("%s", text, extra={"name_of": text, text: 1})

    (line,) = journal.lines
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    found = json.loads(line)
    assert (found["message"], found["name_of"], found[text]) == (text, text, 1)


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@dataclass
class Parcel:
    weight: int
    event: LetterStamped


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"\x00", "b'\\x00'"),
        (2**70, str(2**70)),
        (10**5000, "<int>"),
        (Broken(), "<Broken>"),
        ({1: "a", Broken(): 2}, {"1": "a", "<Broken>": 2}),
        ({"a": {1}, "b": (2**70, 1)}, {"a": "{1}", "b": [str(2**70), 1]}),
        ({"half": "\ud83d"}, {"half": "\\ud83d"}),
        ([1.5, True, None, 2**70], [1.5, True, None, str(2**70)]),
        (complex(1, 2), "(1+2j)"),
        (SecretStr("x"), "**********"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (LETTER, {"letter_id": "L1", "email": "***"}),
        (Parcel(3, LETTER), {"weight": 3, "event": {"letter_id": "L1", "email": "***"}}),
        ([LETTER, 2**70], [{"letter_id": "L1", "email": "***"}, str(2**70)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_a_form_in_json_is_written_as_text(
    log: logging.Logger, journal: Journal, value: Any, written: Any
) -> None:
    log.info("stamped", extra={"value": value})
    assert journal.last["value"] == written


@pytest.mark.parametrize("value", [ENDLESS, DEEP, {"a": ENDLESS}], ids=["endless", "deep", "in"])
def test_what_has_no_end_is_written_as_far_as_it_goes(
    log: logging.Logger, journal: Journal, value: Any
) -> None:
    log.info("stamped", extra={"value": value})
    assert journal.last["message"] == "stamped"
    assert "[" in json.dumps(journal.last["value"])


def test_a_message_that_does_not_fit_its_arguments_is_written_all_the_same(
    log: logging.Logger, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    log.handlers[:] = [journal]  # without pytest's own, which would object
    log.info("%d letters", "three")
    log.info("%s", Broken())

    assert [json.loads(line)["message"] for line in journal.lines] == [
        "%d letters ('three',)",
        "%s <tuple>",
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ("x" * 300_000, {}),
        ("é" * 130_000, {}),
        ("\x01" * 60_000, {}),
        ("short", {"value": ["x" * 100] * 4_000}),
        ("short", {f"field{number}": "\x01" * 1_000 for number in range(400)}),
    ],
)
def test_a_line_that_is_too_long_is_cut_and_is_json_still(
    log: logging.Logger, journal: Journal, message: str, extra: dict[str, Any]
) -> None:
    with bind(CONTEXT):
        log.info(message, extra=extra)

    (line,) = journal.lines
    assert len(line.encode()) <= MOST_BYTES
    assert journal.last["cut"] is True
    assert journal.last["message"].startswith(message[:5])


def test_the_exception_of_a_line_that_is_too_long_keeps_its_parts(
    log: logging.Logger, journal: Journal
) -> None:
    try:
        raise TooHeavy("x" * 400_000)
    except TooHeavy:
        log.exception("not stamped")

    found = journal.last["exception"]
    assert found["type"] == f"{__name__}.TooHeavy"
    assert found["stack"].startswith("Traceback (most recent call last):")


# --- in threads and tasks ----------------------------------------------------------------


def handed_over(log: logging.Logger, queueing: QueueHandler, formatter: Any) -> list[str]:
    """The lines of a journal behind a queue, of two records of which the first has a delivery."""
    journal = Journal(formatter)
    log.addHandler(queueing)
    listener = QueueListener(queueing.queue, journal)
    listener.start()
    with bind(CONTEXT):
        try:
            raise TooHeavy("2 kg")
        except TooHeavy:
            log.exception("not stamped", extra={"stamps": 3})
    log.info("nothing to do")
    listener.stop()
    return journal.lines


def test_a_record_that_is_formatted_in_another_thread_keeps_its_fields(
    log: logging.Logger,
) -> None:
    queueing = QueueHandler(SimpleQueue())
    queueing.addFilter(DeliveryFields())

    first, second = map(json.loads, handed_over(log, queueing, JsonFormatter()))

    assert {name: first.get(name) for name in FIELDS} == FIELDS
    assert first["stamps"] == 3
    assert second.keys() & FIELDS.keys() == set()


def test_a_queue_handler_with_the_formatter_hands_over_whole_lines(log: logging.Logger) -> None:
    queueing = QueueHandler(SimpleQueue())
    queueing.setFormatter(JsonFormatter())

    first, second = map(json.loads, handed_over(log, queueing, None))

    assert {name: first.get(name) for name in FIELDS} == FIELDS
    assert first["exception"]["message"] == "2 kg"
    assert second["message"] == "nothing to do"


def test_fields_are_noted_once_where_the_record_was_made(log: logging.Logger) -> None:
    record = log.makeRecord("x", logging.INFO, "f", 1, "stamped", (), None)
    with bind(CONTEXT):
        assert DeliveryFields().filter(record)
    assert DeliveryFields().filter(record)
    assert json.loads(JsonFormatter().format(record))["event_id"] == "e-1"


async def test_tasks_and_threads_of_a_handler_have_its_fields_and_others_do_not(
    log: logging.Logger, journal: Journal
) -> None:
    ready = asyncio.Event()

    async def task() -> None:
        await ready.wait()
        log.info("task")
        await asyncio.to_thread(log.info, "thread")

    with bind(CONTEXT):
        started = asyncio.create_task(task())
    other = asyncio.create_task(asyncio.to_thread(log.info, "other"))
    plain = threading.Thread(target=log.info, args=("plain",))
    plain.start()
    await asyncio.to_thread(plain.join)
    await other
    ready.set()
    await started

    lines = {line["message"]: line.get("event_id") for line in map(json.loads, journal.lines)}
    assert lines == {"task": "e-1", "thread": "e-1", "other": None, "plain": None}


# --- text --------------------------------------------------------------------------------


def test_text_names_the_correlation_before_the_stack(log: logging.Logger) -> None:
    journal = Journal(TextFormatter())
    log.addHandler(journal)
    with bind(CONTEXT):
        try:
            raise TooHeavy("2 kg")
        except TooHeavy:
            log.exception("not stamped")
    log.info("nothing to do")

    first, second = journal.lines
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR not stamped \[e-1\]\nTrac", first)
    assert second.endswith(" INFO nothing to do")


def test_a_correlation_id_cannot_pose_as_a_line_of_text(log: logging.Logger) -> None:
    journal = Journal(TextFormatter())
    log.addHandler(journal)
    metadata = METADATA.model_copy(update={"correlation_id": "a\n2026 INFO all is well"})
    with bind(Context("post", "stamp", metadata, DELIVERY)):
        log.info("stamped")
    assert journal.lines[0].endswith(" INFO stamped ['a\\n2026 INFO all is well']")


# --- payloads ----------------------------------------------------------------------------


def test_a_payload_is_a_field_in_json_and_part_of_the_line_in_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headrace.payloads")
    PayloadLog().decoded("post", Envelope(METADATA, LETTER))

    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "LetterStamped arrived"
    assert line["payload"] == {"letter_id": "L1", "email": "***"}
    said = 'LetterStamped arrived: {"letter_id":"L1","email":"***"}'
    assert TextFormatter().format(record).endswith(said)


# --- who writes --------------------------------------------------------------------------


@dataclass
class Process:
    """A process that has not logged yet."""

    root: logging.Logger
    stderr: io.StringIO

    @property
    def lines(self) -> list[str]:
        return self.stderr.getvalue().splitlines()


@contextmanager
def a_process() -> Iterator[Process]:
    # Not as a fixture: pytest puts its own handlers, and its own stderr, in place before the test.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    with redirect_stderr(io.StringIO()) as stderr:
        try:
            yield Process(root, stderr)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def test_json_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with a_process() as process:
        configure(JSON)
        logging.info("up")
        logging.debug("not that much")
        (line,) = process.lines

    assert json.loads(line)["message"] == "up"
    assert capsys.readouterr().out == ""


def test_text_goes_to_stderr() -> None:
    with a_process() as process:
        configure(TEXT)
        logging.info("up")
        (line,) = process.lines
    assert line.endswith(" INFO up")


def test_the_level_is_that_of_the_settings() -> None:
    with a_process() as process:
        configure(ObserveSettings(log_level="ERROR"))
        logging.warning("not that much")
        logging.error("down")
        assert len(process.lines) == 1


def test_configured_again_a_line_is_written_once_and_as_the_last_settings_say() -> None:
    with a_process() as process:
        for settings in (JSON, TEXT, JSON):
            configure(settings)
        logging.info("up")
        (line,) = process.lines
    assert json.loads(line)["message"] == "up"


def test_text_leaves_all_to_whoever_has_set_up_logging_before() -> None:
    with a_process() as process:
        mine = Journal()
        process.root.addHandler(mine)
        process.root.setLevel(logging.ERROR)
        configure(TEXT)
        assert (process.root.handlers, process.root.level) == ([mine], logging.ERROR)


def test_json_stands_beside_the_handlers_of_others() -> None:
    with a_process() as process:
        mine = Journal(logging.Formatter("mine: %(message)s"))
        process.root.addHandler(mine)
        configure(JSON)
        configure(JSON)
        logging.info("up")
        (line,) = process.lines

    assert mine.lines == ["mine: up"]
    assert json.loads(line)["message"] == "up"


class Sink:
    def __init__(self) -> None:
        self.written: list[str] = []

    def log(self, message: str, frame_type: bytes | None = None) -> None:
        self.written.append(message)


def on_lambda(root: logging.Logger) -> Sink:
    """What the runtime does before it imports the function."""
    sink = Sink()
    handler = LambdaLoggerHandler(sink)
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(aws_request_id)s %(message)s\n"))
    handler.addFilter(LambdaLoggerFilter())
    root.addHandler(handler)
    return sink


def test_on_lambda_json_is_written_by_the_handler_of_the_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_process() as process:
        sink = on_lambda(process.root)
        configure(JSON)
        configure(JSON)
        logging.info("cold")
        monkeypatch.setattr("awslambdaric.bootstrap._GLOBAL_AWS_REQUEST_ID", "r-1")
        with bind(CONTEXT):
            logging.info("warm")
        assert process.lines == []

    cold, warm = sink.written
    assert cold.endswith("}\n")
    assert json.loads(cold).keys() == {"timestamp", "level", "logger", "message"}
    assert (json.loads(warm)["aws_request_id"], json.loads(warm)["event_id"]) == ("r-1", "e-1")


def test_on_lambda_text_stays_as_the_runtime_writes_it() -> None:
    with a_process() as process:
        sink = on_lambda(process.root)
        process.root.setLevel(logging.WARNING)
        configure(TEXT)
        logging.info("not that much")
        logging.warning("hot")
        assert process.lines == []
    assert sink.written == ["[WARNING]  hot\n"]


def test_a_line_that_cannot_be_written_is_no_error_of_whoever_logs() -> None:
    with a_process() as process:
        configure(JSON)
        process.stderr.close()
        logging.info("up")


def test_text_that_does_not_fit_its_arguments_is_shown_as_logging_shows_it() -> None:
    with a_process() as process:
        configure(TEXT)
        logging.info("%d letters", "three")
        assert process.lines[0] == "--- Logging error ---"
