"""The payments server: what it consists of."""

from __future__ import annotations

from functools import partial

from paymesh.payments.v1 import payments_pb2, payments_pb2_grpc, top_ups_pb2, top_ups_pb2_grpc

from servers.payments import peers
from servers.payments.client_secrets import ClientSecrets
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.gateway_stripe import StripeGateway, classify
from servers.payments.jobs import SWEEP_SECONDS, sweep_windows
from servers.payments.outcomes import Outcomes
from servers.payments.render import Renderer
from servers.payments.resolvers import resolvers
from servers.payments.return_urls import ReturnUrls
from servers.payments.saving import Saving
from servers.payments.service import PaymentService, TopUpPaymentService
from servers.payments.settings import PaymentsSettings
from servers.payments.usecases import Deps
from servers.payments.webhooks import Webhooks
from servers.runtime.app import Context, Parts, Server, Service
from servers.runtime.janitor import Janitor
from servers.runtime.outbound import Outbound
from servers.runtime.sweeps import sweep


def deps_of(context: Context[PaymentsSettings], renderer: Renderer, gateway: StripeGateway) -> Deps:
    """Put together what the use cases work with."""
    events, settings, clock = Events(renderer), context.settings, context.clock
    saving = Saving(events, clock)
    fee_plans = FeePlans(settings.fee_plan)
    return Deps(
        db=context.db,
        clock=clock,
        gateway=gateway,
        outbound=Outbound(target="stripe", classify=classify, clock=clock),
        ledger=peers.LedgerPeer(context.channels),
        # The channel tries again by itself; what it gives up on, the caller or the janitor asks again.
        ledger_outbound=Outbound(target="wallets", classify=peers.classify, clock=clock, tries=1),
        events=events,
        fee_plans=fee_plans,
        throttle=context.throttle,
        saving=saving,
        outcomes=Outcomes(events, fee_plans, clock, saving, context.db.sealer),
        return_urls=ReturnUrls(platform_origins=settings.return_url_origins, loopback=settings.profile != "production"),
    )


async def build(context: Context[PaymentsSettings]) -> Parts:
    """Put the parts together."""
    settings = context.settings
    gateway = StripeGateway(
        settings.stripe_api_key.get_secret_value(),
        api_base=settings.stripe_api_base,
        webhook_secrets=settings.stripe_webhook_secrets.get_secret_value().split(","),
        public_url=settings.public_url,
    )
    secrets = ClientSecrets(settings.client_secret_key.get_secret_value())
    renderer = Renderer(
        livemode=gateway.livemode,
        secrets=secrets,
        sealer=context.db.sealer,
        stripe_publishable_key=settings.stripe_publishable_key,
    )
    deps = deps_of(context, renderer, gateway)
    webhooks = Webhooks(deps)
    services = [
        Service(
            servicer=PaymentService(deps, renderer, context.pages, webhooks, secrets),
            add=payments_pb2_grpc.add_PaymentServiceServicer_to_server,
            descriptor=payments_pb2.DESCRIPTOR.services_by_name["PaymentService"],
        ),
        Service(
            servicer=TopUpPaymentService(deps, renderer),
            add=top_ups_pb2_grpc.add_TopUpPaymentServiceServicer_to_server,
            descriptor=top_ups_pb2.DESCRIPTOR.services_by_name["TopUpPaymentService"],
        ),
    ]
    return Parts(
        services=services,
        janitor=Janitor(context.db, resolvers(deps)),
        jobs=webhooks.jobs(),
        tasks=[partial(sweep, partial(sweep_windows, deps), every_seconds=SWEEP_SECONDS)],
    )


SERVER = Server(domain="payments", settings=PaymentsSettings, build=build)
