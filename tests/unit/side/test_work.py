"""What is the same for every contender."""

from __future__ import annotations

import json

from benchmarks.side import work
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job


def test_a_body_has_about_900_bytes_and_one_id_of_its_own() -> None:
    bodies = [work.body(number) for number in (0, 99_999_999)]

    assert all(850 <= len(body) <= 950 for body in bodies)
    assert len({json.loads(body)["id"] for body in bodies}) == 2


def test_the_bodies_that_are_made_fast_are_the_same() -> None:
    bodies = work.Bodies(seed=7, poison=0.1)

    numbers = [*range(40), 99_999_999]
    slow = [work.body(number, seed=7, poison=0.1) for number in numbers]
    assert [bodies[number] for number in numbers] == slow


def test_the_model_and_the_plain_order_have_the_same_total() -> None:
    given = work.order(7)

    assert OrderPlaced.model_validate(given).total == work.total(given["lines"])


def test_one_in_each_batch_of_ten_is_expected_to_fail() -> None:
    event = work.lambda_event(range(20, 30), poison=0.1)

    answer = work.expected_failures(range(20, 30), 0.1)

    records = [record["messageId"] for record in event["Records"]]
    (failure,) = answer["batchItemFailures"]
    assert records.index(failure["itemIdentifier"]) == 5


def test_a_job_is_read_as_it_was_written() -> None:
    job = Job("drain", "http://127.0.0.1:1", 2_000, poison=0.1, options={"handlers": 3})

    assert Job.from_environment({"BENCH_JOB": job.as_json()}) == job


def test_the_warm_up_is_five_percent_in_whole_batches() -> None:
    assert [Job("drain", "", messages).warm_up for messages in (10, 500, 2_000)] == [0, 20, 100]
