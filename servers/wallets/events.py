"""What the wallets domain tells: `ledger.batch_posted`, one per commit of the writer."""

from __future__ import annotations

from datetime import datetime

from paymesh.wallets.v1 import wallets_events_pb2

from servers.runtime.outbox import OutboxEvent
from servers.runtime.render import stamp
from servers.wallets.domain import Sheet
from servers.wallets.render import render_transfer


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
