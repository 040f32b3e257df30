"""The payments server: what it consists of."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from paymesh.payments.v1 import (
    payments_pb2,
    payments_pb2_grpc,
    stripe_events_pb2,
    stripe_events_pb2_grpc,
    top_ups_pb2,
    top_ups_pb2_grpc,
)

from servers.payments import peers
from servers.payments.client_secrets import ClientSecrets
from servers.payments.disputing import Disputing
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.gateway_stripe import StripeGateway, classify
from servers.payments.jobs import SWEEP_SECONDS, jobs, sweep_due
from servers.payments.outcomes import Outcomes
from servers.payments.polling import Poller
from servers.payments.render import Renderer
from servers.payments.resolvers import resolvers
from servers.payments.return_urls import ReturnUrls
from servers.payments.risk import Screening, Thresholds
from servers.payments.saving import Saving
from servers.payments.service import PaymentService, StripeEventService, TopUpPaymentService
from servers.payments.settings import PaymentsSettings
from servers.payments.usecases import Deps, Timing, rounds
from servers.payments.webhooks import Webhooks
from servers.runtime.app import Context, Parts, Server, Service
from servers.runtime.janitor import Janitor
from servers.runtime.outbound import Outbound
from servers.runtime.sweeps import sweep


def deps_of(context: Context[PaymentsSettings], renderer: Renderer, gateway: StripeGateway) -> Deps:
    """Put together what the use cases work with."""
    events, settings, clock = Events(renderer), context.settings, context.clock
    saving, disputing = Saving(events, clock), Disputing(events, clock, settings.dispute_fee_payer)
    fee_plans = FeePlans(settings.fee_plan)
    return Deps(
        db=context.db,
        clock=clock,
        gateway=gateway,
        outbound=Outbound(target="stripe", classify=classify, clock=clock),
        balance_outbound=Outbound(target="stripe_balance", classify=classify, clock=clock),
        ledger=peers.LedgerPeer(context.channels),
        # The channel tries again by itself; what it gives up on, the caller or the janitor asks again.
        ledger_outbound=Outbound(target="wallets", classify=peers.classify, clock=clock, tries=1),
        events=events,
        fee_plans=fee_plans,
        throttle=context.throttle,
        saving=saving,
        outcomes=Outcomes(events, fee_plans, clock, saving, context.db.sealer, disputing),
        disputing=disputing,
        screening=Screening(Thresholds(settings.review_above_minor), closed=settings.risk_failure_mode == "closed"),
        review_timeout=timedelta(seconds=settings.review_timeout_seconds),
        refunds_wait=settings.refunds_wait_for_balance,
        return_urls=ReturnUrls(platform_origins=settings.return_url_origins, loopback=settings.profile != "production"),
    )


async def build(context: Context[PaymentsSettings]) -> Parts:
    """Put the parts together."""
    settings = context.settings
    gateway = StripeGateway(
        settings.stripe_api_key.get_secret_value(),
        api_base=settings.stripe_api_base,
        webhook_secrets=settings.webhook_secrets,
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
    timing = Timing(
        lag=timedelta(seconds=settings.reconcile_lag_seconds),
        missing_after=timedelta(seconds=settings.reconcile_missing_after_seconds),
    )
    poller = Poller(deps, webhooks)
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
        Service(
            servicer=StripeEventService(deps, context.pages, webhooks, poller),
            add=stripe_events_pb2_grpc.add_StripeEventServiceServicer_to_server,
            descriptor=stripe_events_pb2.DESCRIPTOR.services_by_name["StripeEventService"],
        ),
    ]
    return Parts(
        services=services,
        janitor=Janitor(context.db, resolvers(deps)),
        jobs=[*webhooks.jobs(), *poller.jobs(), *jobs(deps)],
        tasks=[
            partial(sweep, partial(sweep_due, deps), every_seconds=SWEEP_SECONDS),
            partial(sweep, rounds(deps, timing), every_seconds=settings.reconcile_every_seconds),
        ],
        closing=[gateway.close],
    )


SERVER = Server(domain="payments", settings=PaymentsSettings, build=build)
