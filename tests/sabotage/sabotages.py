"""Protections of the library to take away, and who is to notice that each is gone."""

from __future__ import annotations

from typing import Final

from headrace.testing import Faults
from tests.sabotage import deliveries, effects, leases, messages, requests, workers
from tests.sabotage.sabotage import Sabotage

LOST_OR_REPEATED: Final = (
    "no order is lost",
    "every order ends once",
    "every reply is given once",
    "every customer is notified once",
)
"""What the shop says when something is missing or there twice."""

ZOO_LOSES: Final = (
    "every step is taken once",
    "every visitor is fed or hungry",
    "every operation is done once",
)

SABOTAGES: Final = (
    Sabotage(
        "no inbox record",
        effects.no_inbox_record,
        caught_by=("exactly once",),
        around=0,
    ),
    Sabotage(
        "ack before dispatch",
        messages.ack_before_dispatch,
        caught_by=LOST_OR_REPEATED,
        around=31,
    ),
    Sabotage(
        "ids are not derived",
        messages.ids_are_not_derived,
        caught_by=LOST_OR_REPEATED,
        around=1,
    ),
    Sabotage(
        "no version check",
        effects.no_version_check,
        caught_by=("stock adds up", *LOST_OR_REPEATED),
        around=14,
    ),
    Sabotage(
        "no fencing",
        leases.no_fencing,
        caught_by=("exactly once", "every operation is done once"),
        around=1,
        scenario="zoo",
    ),
    Sabotage(
        "lease is not renewed",
        leases.lease_is_not_renewed,
        caught_by=("one at a time operates",),
        around=235,
        scenario="zoo",
    ),
    Sabotage(
        "done-mark before dispatch",
        messages.done_mark_before_dispatch,
        caught_by=LOST_OR_REPEATED,
        around=24,
    ),
    Sabotage(
        "delete before commit",
        deliveries.delete_before_commit,
        caught_by=("dead letters", *LOST_OR_REPEATED),
        around=0,
    ),
    Sabotage(
        "letter deleted before its copy",
        deliveries.letter_deleted_before_its_copy,
        caught_by=("dead letters",),
        around=58,
    ),
    Sabotage(
        "unconditional claim",
        effects.unconditional_claim,
        caught_by=("exactly once",),
        around=0,
    ),
    Sabotage(
        "bad input is dropped",
        deliveries.bad_input_is_dropped,
        caught_by=("dead letters",),
        around=0,
    ),
    Sabotage(
        "no relay",
        messages.no_relay,
        caught_by=("settled",),
        around=24,
    ),
    Sabotage(
        "record expires early",
        effects.record_expires_early,
        caught_by=("exactly once",),
        around=0,
    ),
    Sabotage(
        "failed entries are forgotten",
        messages.failed_entries_are_forgotten,
        caught_by=LOST_OR_REPEATED,
        around=6,
    ),
    Sabotage(
        "retry deletes",
        deliveries.retry_deletes,
        caught_by=LOST_OR_REPEATED,
        around=3,
    ),
    Sabotage(
        "conflict counts as success",
        effects.conflict_counts_as_success,
        caught_by=("stock adds up", *LOST_OR_REPEATED),
        around=5,
    ),
    Sabotage(
        "record apart from writes",
        effects.record_apart_from_writes,
        caught_by=("stock adds up", *LOST_OR_REPEATED),
        around=1,
    ),
    Sabotage(
        "dispatch before commit",
        messages.dispatch_before_commit,
        caught_by=LOST_OR_REPEATED,
        around=0,
    ),
    Sabotage(
        "new item over another",
        effects.new_item_over_another,
        caught_by=("stock adds up", *LOST_OR_REPEATED),
        around=20,
    ),
    Sabotage(
        "sent before it is",
        messages.sent_before_it_is,
        caught_by=ZOO_LOSES,
        around=2,
        scenario="zoo",
        faults=Faults(partial=0.3, duplicate=0.2),
    ),
    Sabotage(
        "what another left is not sent",
        messages.what_another_left_is_not_sent,
        caught_by=LOST_OR_REPEATED,
        around=11,
    ),
    Sabotage(
        "one record for all handlers",
        effects.one_record_for_all_handlers,
        caught_by=("every step is taken once",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "reasons for the wrong ones",
        effects.reasons_for_the_wrong_ones,
        caught_by=("every ticket is scanned once", *ZOO_LOSES),
        around=22,
        scenario="zoo",
    ),
    Sabotage(
        "condition of an update is ignored",
        effects.condition_of_an_update_is_ignored,
        caught_by=("the larder is never overdrawn",),
        around=1,
        scenario="zoo",
    ),
    Sabotage(
        "ids without their consumer",
        messages.ids_without_their_consumer,
        caught_by=("every step is taken once",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "correlation is lost",
        messages.correlation_is_lost,
        caught_by=("everything knows its first command",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "one holder for all",
        leases.one_holder_for_all,
        caught_by=("one at a time operates",),
        around=62,
        scenario="zoo",
    ),
    Sabotage(
        "answer is not kept",
        requests.answer_is_not_kept,
        caught_by=("a key has one answer",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "content is not compared",
        requests.content_is_not_compared,
        caught_by=("a key has one answer",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "pending record expires",
        requests.pending_record_expires,
        caught_by=("every booking is made once", "exactly once"),
        around=23,
        scenario="zoo",
        faults=Faults.only(ttl=0.9, outage=0.9, crash=0.05),
    ),
    Sabotage(
        "mismatch is dropped",
        deliveries.mismatch_is_dropped,
        caught_by=("dead letters",),
        around=0,
    ),
    Sabotage(
        "future version is dropped",
        deliveries.future_version_is_dropped,
        caught_by=("what is too new is kept",),
        around=1,
        scenario="zoo",
    ),
    Sabotage(
        "where is not asked again",
        deliveries.where_is_not_asked_again,
        caught_by=("every step is taken once",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "timeout is ignored",
        deliveries.timeout_is_ignored,
        caught_by=("settled",),
        around=2,
        scenario="zoo",
    ),
    Sabotage(
        "group goes on past a failure",
        deliveries.group_goes_on_past_a_failure,
        caught_by=("bells ring in order",),
        around=0,
        scenario="zoo",
    ),
    Sabotage(
        "failed receive ends the worker",
        workers.failed_receive_ends_the_worker,
        caught_by=("worker",),
        around=0,
    ),
    Sabotage(
        "failed receive keeps its slots",
        workers.failed_receive_keeps_its_slots,
        caught_by=("settled",),
        around=1,
    ),
    Sabotage(
        "failed sweep ends the worker",
        workers.failed_sweep_ends_the_worker,
        caught_by=("worker",),
        around=0,
    ),
    Sabotage(
        "error in the background",
        workers.error_in_the_background,
        caught_by=("worker",),
        around=0,
    ),
)
