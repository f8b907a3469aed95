"""The order service on Lambda."""

from headrace.hosts.lambda_ import lambda_handler
from services.order.app import order

handler = lambda_handler(order)
