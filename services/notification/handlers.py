"""What the notification service does when something happens."""

from __future__ import annotations

from datetime import timedelta

from headrace import Metadata, Transaction
from schemas.notification import CustomerNotified
from schemas.order import OrderCancelled, OrderConfirmed
from services.notification.mail import Mailer
from services.notification.model import mail_about
from services.notification.service import notification


@notification.on(OrderConfirmed, OrderCancelled, lease=timedelta(seconds=10))
async def notify_customer(
    event: OrderConfirmed | OrderCancelled, metadata: Metadata, tx: Transaction, mailer: Mailer
) -> CustomerNotified:
    mail = mail_about(event, metadata.time)
    # Before the commit, which cannot hold a mail: the lease keeps a second delivery from sending it
    # at the same time, and a repeat after a crash sends it under the same key.
    await mailer.send(mail, idempotency_key=tx.idempotency_key)
    return CustomerNotified(order_id=mail.order_id, email=mail.address, subject=mail.subject)
