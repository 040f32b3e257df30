"""The notifications server: what it consists of."""

from __future__ import annotations

from functools import partial

from paymesh.notifications.v1 import notifications_pb2, notifications_pb2_grpc

from servers.notifications.consumer import GROUP, TOPICS, handlers
from servers.notifications.gateway_smtp import SmtpGateway
from servers.notifications.peers import Directory
from servers.notifications.service import NotificationService
from servers.notifications.settings import NotificationsSettings
from servers.notifications.usecases import SEND, TRIES, Deps, send_email
from servers.runtime.app import Context, Parts, Server, Service
from servers.runtime.consumer import Consumer
from servers.runtime.jobs import Job


async def build(context: Context[NotificationsSettings]) -> Parts:
    """Put the parts together."""
    deps = Deps(
        db=context.db,
        clock=context.clock,
        gateway=SmtpGateway(context.settings, context.clock),
        directory=Directory(context.channels),
        public_url=context.settings.public_url,
    )
    service = Service(
        servicer=NotificationService(context.db, context.pages),
        add=notifications_pb2_grpc.add_NotificationServiceServicer_to_server,
        descriptor=notifications_pb2.DESCRIPTOR.services_by_name["NotificationService"],
    )
    consumer = Consumer(context.db, context.log, group=GROUP, topics=TOPICS, handlers=handlers(deps))
    sending = Job(name=SEND, run=partial(send_email, deps), tries=TRIES)
    return Parts(services=[service], consumers=[consumer], jobs=[sending])


SERVER = Server(domain="notifications", settings=NotificationsSettings, build=build)
