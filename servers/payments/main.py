"""The payments server: what it consists of."""

from __future__ import annotations

from paymesh.payments.v1 import payments_pb2, payments_pb2_grpc

from servers.payments.events import Events
from servers.payments.gateway_stripe import StripeGateway, classify
from servers.payments.outcomes import Outcomes
from servers.payments.peers import LedgerPeer
from servers.payments.render import Renderer
from servers.payments.resolvers import resolvers
from servers.payments.service import PaymentService
from servers.payments.settings import PaymentsSettings
from servers.payments.usecases import Deps
from servers.payments.webhooks import Webhooks
from servers.runtime.app import Context, Parts, Server, Service
from servers.runtime.janitor import Janitor
from servers.runtime.outbound import Outbound


def deps_of(context: Context[PaymentsSettings], renderer: Renderer, gateway: StripeGateway) -> Deps:
    """Put together what the use cases work with."""
    events = Events(renderer)
    return Deps(
        db=context.db,
        clock=context.clock,
        gateway=gateway,
        outbound=Outbound(target="stripe", classify=classify, clock=context.clock),
        ledger=LedgerPeer(context.channels),
        events=events,
        throttle=context.throttle,
        outcomes=Outcomes(events, context.settings.fee_plan, context.clock),
    )


async def build(context: Context[PaymentsSettings]) -> Parts:
    """Put the parts together."""
    settings = context.settings
    secrets = settings.stripe_webhook_secrets.get_secret_value().split(",")
    gateway = StripeGateway(
        settings.stripe_api_key.get_secret_value(), api_base=settings.stripe_api_base, webhook_secrets=secrets
    )
    renderer = Renderer(livemode=gateway.livemode)
    deps = deps_of(context, renderer, gateway)
    webhooks = Webhooks(deps)
    service = Service(
        servicer=PaymentService(deps, renderer, context.pages, webhooks),
        add=payments_pb2_grpc.add_PaymentServiceServicer_to_server,
        descriptor=payments_pb2.DESCRIPTOR.services_by_name["PaymentService"],
    )
    return Parts(services=[service], janitor=Janitor(context.db, resolvers(deps)), jobs=webhooks.jobs())


SERVER = Server(domain="payments", settings=PaymentsSettings, build=build)
