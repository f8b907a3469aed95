"""Taking away what keeps two deliveries of one event apart."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace import inbox, lease
from headrace.ports import Put
from headrace.record import Record
from tests.sabotage.sabotage import Patch


def no_fencing(patch: Patch) -> None:
    """Whoever has lost the lease commits all the same."""

    def unconditional(record: Record, holder: str) -> Put:
        return Put(record.key.table, record.as_item(), return_old=True)

    patch.setattr(inbox, "_completion", unconditional)


def lease_is_not_renewed(patch: Patch) -> None:
    """A handler that takes longer than its lease does not keep it."""

    async def never(self: lease.Lease, keeping: Any) -> None:
        await asyncio.Event().wait()

    patch.setattr(lease.Lease, "_renew_on", never)
    patch.setattr(lease.Lease, "_is_due", lambda self: False)


def one_holder_for_all(patch: Patch) -> None:
    """All deliveries of a process hold a lease together."""
    made = lease.Lease.__init__
    holders: dict[inbox.Inbox, str] = {}

    def shared(
        self: lease.Lease, store: Any, inbox: inbox.Inbox, *args: Any, **options: Any
    ) -> None:
        made(self, store, inbox, *args, **options)
        self.holder = holders.setdefault(inbox, self.holder)

    patch.setattr(lease.Lease, "__init__", shared)
