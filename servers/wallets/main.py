"""The wallets server: what it consists of."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from paymesh.wallets.v1 import ledger_pb2, ledger_pb2_grpc, proofs_pb2, proofs_pb2_grpc, wallets_pb2, wallets_pb2_grpc

from servers.runtime.app import Context, Parts, Server, Service
from servers.runtime.consumer import Consumer
from servers.runtime.janitor import Janitor
from servers.runtime.objects import Objects
from servers.runtime.outbound import Outbound
from servers.runtime.sweeps import sweep
from servers.wallets.chain import keys_of
from servers.wallets.consumer import GROUP, TOPICS, concerns, handlers
from servers.wallets.jobs import SWEEP_SECONDS, publish_roots, sweep_ledger
from servers.wallets.outcomes import Outcomes
from servers.wallets.peers import PEER, PaymentsPeer, classify
from servers.wallets.resolvers import resolvers
from servers.wallets.service import LedgerService, ProofService, WalletService
from servers.wallets.settings import WalletsSettings
from servers.wallets.usecases import Deps
from servers.wallets.usecases.roots import Roots
from servers.wallets.writer import SHARD, Writer


async def build(context: Context[WalletsSettings]) -> Parts:
    """Put the parts together."""
    settings = context.settings
    writer = Writer(
        context.db,
        keys=keys_of(settings.ledger_chain_keys.get_secret_value()),
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
    roots = Roots(
        context.db,
        Objects(settings.object_store_url),
        shard=SHARD,
        period=timedelta(seconds=settings.root_period_seconds),
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
                servicer=ProofService(context.db, roots, context.pages),
                add=proofs_pb2_grpc.add_ProofServiceServicer_to_server,
                descriptor=proofs_pb2.DESCRIPTOR.services_by_name["ProofService"],
            ),
            Service(
                servicer=LedgerService(context.db, writer),
                add=ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
                descriptor=ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"],
            ),
        ],
        consumers=[consumer],
        janitor=Janitor(context.db, resolvers(deps)),
        tasks=[
            writer.run,
            partial(sweep, partial(sweep_ledger, writer), every_seconds=SWEEP_SECONDS),
            partial(sweep, partial(publish_roots, roots), every_seconds=SWEEP_SECONDS),
        ],
    )


SERVER = Server(domain="wallets", settings=WalletsSettings, build=build)
