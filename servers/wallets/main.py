"""The wallets server: what it consists of."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc, wallets_pb2, wallets_pb2_grpc

from servers.runtime.app import Context, Parts, Server, Service
from servers.runtime.consumer import Consumer
from servers.runtime.janitor import Janitor
from servers.runtime.outbound import Outbound
from servers.runtime.sweeps import sweep
from servers.wallets.consumer import GROUP, TOPICS, concerns, handlers
from servers.wallets.jobs import SWEEP_SECONDS, sweep_ledger
from servers.wallets.outcomes import Outcomes
from servers.wallets.peers import PEER, PaymentsPeer, classify
from servers.wallets.resolvers import resolvers
from servers.wallets.service import LedgerService, WalletService
from servers.wallets.settings import WalletsSettings
from servers.wallets.usecases import Deps
from servers.wallets.writer import Writer


async def build(context: Context[WalletsSettings]) -> Parts:
    """Put the parts together."""
    settings = context.settings
    writer = Writer(
        context.db,
        queue_max=settings.writer_queue_max,
        batch_max=settings.writer_batch_max,
        settlement_delay=timedelta(seconds=settings.settlement_delay_seconds),
    )
    deps = Deps(
        db=context.db,
        clock=context.clock,
        payments=PaymentsPeer(context.channels),
        # Once: the channel tries again by itself while payments is away.
        outbound=Outbound(target=PEER, classify=classify, clock=context.clock, tries=1),
        outcomes=Outcomes(writer, context.db.sealer, context.clock),
    )
    consumer = Consumer(
        context.db, context.log, group=GROUP, topics=TOPICS, handlers=handlers(writer, deps), concerns=concerns
    )
    return Parts(
        services=[
            Service(
                servicer=WalletService(deps, context.pages),
                add=wallets_pb2_grpc.add_WalletServiceServicer_to_server,
                descriptor=wallets_pb2.DESCRIPTOR.services_by_name["WalletService"],
            ),
            Service(
                servicer=LedgerService(context.db, writer),
                add=ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
                descriptor=ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"],
            ),
        ],
        consumers=[consumer],
        janitor=Janitor(context.db, resolvers(deps)),
        tasks=[writer.run, partial(sweep, partial(sweep_ledger, writer), every_seconds=SWEEP_SECONDS)],
    )


SERVER = Server(domain="wallets", settings=WalletsSettings, build=build)
