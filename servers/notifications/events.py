"""What the notifications domain tells."""

from __future__ import annotations

from paymesh.notifications.v1 import notifications_events_pb2

from servers.notifications.domain import Email
from servers.notifications.render import email_message
from servers.runtime.outbox import OutboxEvent, event_of


def event(kind: str, email: Email) -> OutboxEvent:
    """Return the event of a mail's change."""
    message = notifications_events_pb2.NotificationEvent(email=email_message(email))
    return event_of(kind, message, root_id=email.id, subject=email.id, version=email.version)
