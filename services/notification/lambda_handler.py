"""The notification service on Lambda."""

from headrace.hosts.lambda_ import lambda_handler
from services.notification.app import notification

handler = lambda_handler(notification)
