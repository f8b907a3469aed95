"""The inventory service on Lambda."""

from headrace.hosts.lambda_ import lambda_handler
from services.inventory.app import inventory

handler = lambda_handler(inventory)
