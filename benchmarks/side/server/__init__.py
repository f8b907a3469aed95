"""The instant server: SQS, DynamoDB, EventBridge and STS as far as the contenders call them,
answered at once by a process of its own, so that what is measured is the contender.

It counts instead of keeping: calls by operation, bytes, units of capacity, and for each message
whether its effect (the item `order#…`), its event and its delete came, so that lost and doubled
ones are seen. Conditions are checked for keys it has seen: `attribute_not_exists` fails for those,
any other condition for keys it has not. A visibility timeout never ends; a visibility that is
changed brings the message again at once. Signatures are not checked.

Beside AWS it answers `POST /bench/reset` (see `settings`), `POST /bench/recount`, which counts from
0 again and leaves the rest, `GET /bench/counts`, and `GET /bench/until?deleted=100`, which waits.
"""
