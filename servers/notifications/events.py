"""What the notifications domain tells."""

from __future__ import annotations

from datetime import datetime

from paymesh.notifications.v1 import notifications_events_pb2

from servers.notifications.domain import Email
from servers.notifications.render import email_message
from servers.runtime.outbox import OutboxEvent
from servers.runtime.render import stamp


def event(kind: str, email: Email) -> OutboxEvent:
    """Return the event of a mail's change."""
    message = notifications_events_pb2.NotificationEvent(
        type=kind, subject=email.id, version=email.version, email=email_message(email)
    )

    def render(event_id: str, occur_time: datetime) -> bytes:
        message.event_id = event_id
        message.occur_time.CopyFrom(stamp(occur_time))
        return message.SerializeToString(deterministic=True)

    return OutboxEvent(type=kind, root_id=email.id, subject=email.id, version=email.version, render=render)
