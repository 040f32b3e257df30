"""The gRPC face of the notifications domain: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.notifications.v1 import notifications_pb2, notifications_pb2_grpc

from servers.notifications import store
from servers.notifications.render import email_message
from servers.runtime.call import current_call
from servers.runtime.db import Database
from servers.runtime.pagination import Pages


class NotificationService(notifications_pb2_grpc.NotificationServiceServicer):
    """Mails."""

    def __init__(self, db: Database, pages: Pages) -> None:
        self._db = db
        self._pages = pages

    async def ListEmails(
        self, request: notifications_pb2.ListEmailsRequest, context: Any
    ) -> notifications_pb2.ListEmailsResponse:
        """List the mails to the caller."""
        page = self._pages.read(request)
        async with self._db.read() as conn:
            found = await store.emails(conn, current_call().principal.subject, before=page.before, limit=page.size + 1)
        return notifications_pb2.ListEmailsResponse(
            emails=[email_message(email) for email in found[: page.size]],
            next_page_token=self._pages.token(request, [email.id for email in found], page.size),
        )
