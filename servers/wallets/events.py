"""What the wallets domain tells: `ledger.batch_posted`, one per commit of the writer, and each version of a wallet or top-up."""

from __future__ import annotations

from datetime import datetime

from paymesh.wallets.v1 import wallets_events_pb2

from servers.runtime.outbox import OutboxEvent
from servers.runtime.render import stamp
from servers.wallets.domain import Sheet
from servers.wallets.render import render_transfer
from servers.wallets.render_wallets import render_top_up, render_wallet
from servers.wallets.resources import TopUp, Wallet


def batch_posted(batch_id: str, shard: str, sheet: Sheet, now: datetime) -> OutboxEvent:
    """Return the event that tells what one commit wrote."""
    entries = {(e.transfer_id, e.amount_minor > 0): e for e in sheet.entries}
    batch = wallets_events_pb2.LedgerBatch()
    for transfer in sheet.written:
        posted = batch.transfers.add(transfer=render_transfer(transfer, record_time=now))
        for is_credit, target in ((False, posted.debit), (True, posted.credit)):
            entry = entries.get((transfer.id, is_credit))
            if entry is not None:
                target.account_id = entry.account_id
                target.account_version = entry.version
                target.amount_minor = entry.amount_minor
                target.balance_after_minor = entry.balance_after

    def render(event_id: str, occur_time: datetime) -> bytes:
        event = wallets_events_pb2.WalletEvent(
            event_id=event_id,
            type="ledger.batch_posted",
            subject=batch_id,
            version=1,
            occur_time=stamp(occur_time),
            ledger_batch=batch,
        )
        return event.SerializeToString(deterministic=True)

    return OutboxEvent(type="ledger.batch_posted", root_id=shard, subject=batch_id, version=1, render=render)


def wallet_event(kind: str, wallet: Wallet) -> OutboxEvent:
    """Return the event of a wallet's change."""
    message = wallets_events_pb2.WalletEvent(customer_id=wallet.owner_id, wallet=render_wallet(wallet))
    return _event(kind, wallet.id, wallet.id, wallet.version, message)


def top_up_event(kind: str, top_up: TopUp) -> OutboxEvent:
    """Return the event of a top-up's change; its key is the wallet's, and it tells no secret."""
    message = wallets_events_pb2.WalletEvent(customer_id=top_up.owner_id, top_up=render_top_up(top_up, secrets=False))
    return _event(kind, top_up.wallet_id, top_up.id, top_up.version, message)


def _event(kind: str, root_id: str, subject: str, version: int, message: wallets_events_pb2.WalletEvent) -> OutboxEvent:
    message.type, message.subject, message.version = kind, subject, version

    def render(event_id: str, occur_time: datetime) -> bytes:
        message.event_id = event_id
        message.occur_time.CopyFrom(stamp(occur_time))
        return message.SerializeToString(deterministic=True)

    return OutboxEvent(type=kind, root_id=root_id, subject=subject, version=version, render=render)
