"""The relay of the order service on Lambda."""

from headrace.hosts.relay_lambda import relay_handler
from services.order.app import order

handler = relay_handler(order)
