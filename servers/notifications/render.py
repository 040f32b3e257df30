"""The domain's records as messages of the contract."""

from __future__ import annotations

from paymesh.notifications.v1 import notifications_pb2

from servers.notifications.domain import Email
from servers.runtime.render import stamp


def email_message(email: Email) -> notifications_pb2.Email:
    """Return a mail as a message."""
    return notifications_pb2.Email(
        id=email.id,
        create_time=stamp(email.create_time),
        update_time=stamp(email.update_time),
        resource_version=email.version,
        kind=email.kind.value,
        resource_id=email.resource_id,
        user_id=email.user_id,
        state=notifications_pb2.Email.State.Value(email.state.value),
    )
