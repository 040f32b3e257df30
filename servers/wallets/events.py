"""What the wallets domain tells: `ledger.batch_posted`, one per commit of the writer, and each version of a wallet or top-up."""

from __future__ import annotations

from paymesh.wallets.v1 import wallets_events_pb2

from servers.runtime.outbox import OutboxEvent, event_of
from servers.wallets.domain import Sheet
from servers.wallets.render import render_transfer
from servers.wallets.render_wallets import render_top_up, render_wallet
from servers.wallets.resources import TopUp, Wallet


def batch_posted(batch_id: str, shard: str, sheet: Sheet) -> OutboxEvent:
    """Return the event that tells what one commit wrote."""
    entries = {(e.transfer_id, e.amount_minor > 0): e for e in sheet.entries}
    # Filled in place: a message that is given to another one is copied.
    message = wallets_events_pb2.WalletEvent()
    batch = message.ledger_batch
    for transfer in sheet.written:
        posted = batch.transfers.add(transfer=render_transfer(transfer, record_time=sheet.now))
        for is_credit, target in ((False, posted.debit), (True, posted.credit)):
            entry = entries.get((transfer.id, is_credit))
            if entry is not None:
                target.account_id = entry.account_id
                target.account_version = entry.version
                target.amount_minor = entry.amount_minor
                target.balance_after_minor = entry.balance_after
    return event_of("ledger.batch_posted", message, root_id=shard, subject=batch_id, version=1)


def wallet_event(kind: str, wallet: Wallet) -> OutboxEvent:
    """Return the event of a wallet's change."""
    message = wallets_events_pb2.WalletEvent(customer_id=wallet.owner_id, wallet=render_wallet(wallet))
    return event_of(kind, message, root_id=wallet.id, subject=wallet.id, version=wallet.version)


def top_up_event(kind: str, top_up: TopUp) -> OutboxEvent:
    """Return the event of a top-up's change; its key is the wallet's, and it tells no secret."""
    message = wallets_events_pb2.WalletEvent(customer_id=top_up.owner_id, top_up=render_top_up(top_up, secrets=False))
    return event_of(kind, message, root_id=top_up.wallet_id, subject=top_up.id, version=top_up.version)
