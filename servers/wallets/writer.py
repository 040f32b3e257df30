"""The micro-batched writer.

One task drains a bounded queue: a batch grows only while the previous commit is in flight, so a single transfer waits for
nobody. Inside: lock the accounts once, in id order; apply in memory; write with a few set-based statements; one commit. The
row locks and unique keys keep two writer processes correct: the queue is only for speed. A batch that fails is tried job by
job, so that the culprit stands alone and its neighbours go through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from prometheus_client import Histogram
from sqlalchemy.exc import DBAPIError

from servers.kernel.errors import Kind, Refusal
from servers.kernel.ids import new_id
from servers.kernel.invariant import InvariantBroken
from servers.runtime.db import Database
from servers.runtime.outbox import outbox_rows, topic_of
from servers.wallets import bulk, events, store
from servers.wallets.chain import ChainKeys, Head, next_batch
from servers.wallets.domain import AccountKind, Sheet, Transfer, Verdict, account_id
from servers.wallets.facts import (
    Fact,
    RefundCreatedFact,
    SettlementFact,
    book,
    currency_of,
    holds_of,
    opened_by,
    owner_of,
    related_keys,
    tombstones_of,
    wallet_accounts_of,
)
from servers.wallets.wallet_facts import expiry_of

_log = structlog.get_logger("writer")
_batch_size = Histogram(
    "paymesh_ledger_batch_transfers", "Transfers per commit", buckets=(1, 2, 5, 10, 50, 100, 250, 500)
)

SHARD = "shard-0"
QUIET_TURNS = 16


class LedgerOverloaded(Refusal):
    """The writer's queue is full: shed before latency grows."""

    kind = Kind.EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("The ledger is busy; send the same ids again a little later.", retry_after_seconds=0.5)


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a job: a verdict per transfer, and for a fact the transfers that it has now."""

    verdicts: list[tuple[Verdict, str]]
    transfers: list[Transfer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Transfers or a fact, waiting for the writer."""

    transfers: Sequence[Transfer]
    fact: Fact | None
    done: asyncio.Future[Posted]

    @property
    def weight(self) -> int:
        """About how many transfers the job writes."""
        return len(self.transfers) or 4


class Writer:
    """The one way into the ledger."""

    def __init__(
        self,
        db: Database,
        *,
        keys: ChainKeys,
        queue_max: int,
        batch_max: int,
        settlement_delay: timedelta = timedelta(days=2),
    ) -> None:
        self._db = db
        self._lane = db.lane()
        self._keys = keys
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._waiting = 0
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._settlement_delay = settlement_delay

    async def post(self, transfers: Sequence[Transfer]) -> list[tuple[Verdict, str]]:
        """Write transfers; one verdict each. Raises LedgerOverloaded."""
        return (await self._submit(transfers, None)).verdicts

    async def post_fact(self, fact: Fact) -> Posted:
        """Book a fact. The verdict is CREATED or EXISTS; for what moves a wallet's money also why it was refused. Raises
        LedgerOverloaded."""
        return await self._submit((), fact)

    async def _submit(self, transfers: Sequence[Transfer], fact: Fact | None) -> Posted:
        job = Job(transfers=transfers, fact=fact, done=asyncio.get_running_loop().create_future())
        if self._waiting + job.weight > self._queue_max:
            raise LedgerOverloaded
        self._waiting += job.weight
        self._queue.put_nowait(job)
        return await job.done

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                batch = [await self._queue.get()]
                await self._let_arrive()
                weight = batch[0].weight
                while not self._queue.empty() and weight < self._batch_max:
                    batch.append(self._queue.get_nowait())
                    weight += batch[-1].weight
                self._waiting -= sum(job.weight for job in batch)
                await self._write(batch)
        finally:
            await self._lane.close()

    async def _let_arrive(self) -> None:
        """Let the loop run for as long as that brings jobs: calls which have reached the process take some turns of the loop
        to become jobs. No timer: where nothing is under way, this takes some microseconds."""
        still = 0
        while still < QUIET_TURNS and self._waiting < self._batch_max:
            before = self._waiting
            await asyncio.sleep(0)
            still = 0 if self._waiting > before else still + 1

    async def _write(self, batch: list[Job]) -> None:
        try:
            results = await self._commit_on_a_live_connection(batch)
        except (DBAPIError, InvariantBroken) as error:
            if len(batch) == 1:
                _log.warning("batch.failed", error=type(error).__name__)
                _resolve(batch[0], error=error)
                return
            _log.warning("batch.split", jobs=len(batch), error=type(error).__name__)
            for job in batch:
                await self._write([job])
            return
        for job, result in zip(batch, results, strict=True):
            _resolve(job, result=result)

    async def _commit_on_a_live_connection(self, batch: list[Job]) -> list[Posted]:
        """Commit; where the connection was lost, once more on a new one: what was committed after all answers EXISTS."""
        try:
            return await self._commit(batch)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            _log.warning("batch.connection_lost", jobs=len(batch), error=type(error.orig).__name__)
        return await self._commit(batch)

    async def _commit(self, batch: list[Job]) -> list[Posted]:
        async with self._lane.transaction():
            head, sheet, stored = await self._load(batch)
            results = [_apply(sheet, job, stored) for job in batch]
            self._save(head, sheet)
        if sheet.written:
            self._db.on_outbox()
            _batch_size.observe(len(sheet.written))
        return results

    def _save(self, head: Head, sheet: Sheet) -> None:
        batch_id = new_id("jnl", clock=self._db.clock)
        if sheet.written:
            told = [events.batch_posted(batch_id, SHARD, sheet)]
            (event,) = outbox_rows(told, topic=topic_of(self._db.domain), clock=self._db.clock)
            self._lane.close_with(bulk.save(sheet, batch_id, event))
        self._lane.close_with(*bulk.save_rest(sheet, batch_id))
        if sheet.written or sheet.burns:
            batch = next_batch(self._keys, head, sheet, shard=SHARD, batch_id=batch_id)
            self._lane.close_with(bulk.chain(batch))

    async def _load(self, batch: list[Job]) -> tuple[Head, Sheet, list[Transfer]]:
        """Read what the batch touches. Accounts are locked before anything else is read, so nothing read here can be stale."""
        facts = [job.fact for job in batch if job.fact is not None]
        asked = [transfer for job in batch for transfer in job.transfers]
        holds = {hold for fact in facts for hold in holds_of(fact)}
        tombstones = {tombstone for fact in facts for tombstone in tombstones_of(fact)}
        if holds or tombstones:
            await store.guard(self._lane.conn, holds | tombstones)
        wanted, keys = await self._open_accounts(facts) if facts else ([], [])
        pending_ids = {t.pending_id for t in asked if t.pending_id} | holds
        origins = await store.transfers(self._lane.conn, pending_ids) if pending_ids else {}
        ids = {t.debit_account_id for t in asked} | {t.credit_account_id for t in asked}
        ids |= {id for t in origins.values() for id in (t.debit_account_id, t.credit_account_id)}
        ids |= {account_id(*row) for row in wanted}
        ids |= {account for fact in facts for account in wallet_accounts_of(fact)}
        # Under the locks: a fact or an id may have been written while this batch waited for them.
        looked_for = [*(t.id for t in asked), *holds, *tombstones]
        head, locked, known, burnt = await bulk.read(self._lane, SHARD, ids - {""}, looked_for)
        stored = await store.transfers_of_facts(self._lane.conn, keys) if keys else []
        captures = _captures(facts, keys, stored)
        sheet = Sheet(
            now=max(self._db.clock.now(), head.not_before),
            accounts=locked,
            known=known | {t.id: t for t in stored},
            burnt=burnt,
            pendings=await store.lock_pendings(self._lane.conn, pending_ids) if pending_ids else {},
            lots=await store.lock_lots(self._lane.conn, captures),
            settlement_delay=self._settlement_delay,
        )
        return head, sheet, stored

    async def _open_accounts(
        self, facts: list[Fact]
    ) -> tuple[list[tuple[str, AccountKind, str]], list[tuple[str, str]]]:
        """Open the accounts that facts need. Returns these and the keys under which earlier transfers of the facts are found."""
        conn = self._lane.conn
        wanted = [row for fact in facts for row in opened_by(fact, currency_of(fact))]
        failed = [fact for fact in facts if not currency_of(fact)]
        keys = [(key, owner_of(fact)) for fact in facts for key in related_keys(fact)]
        for transfer in await store.transfers_of_facts(conn, keys) if failed else []:
            wanted += [row for fact in failed for row in opened_by(fact, transfer.currency)]
        wanted = [row for row in wanted if row[2]]
        await store.open_accounts(conn, wanted, self._db.clock.now())
        return wanted, keys

    async def settle_due(self) -> int:
        """Make available what has been pending for long enough. Returns how many captures."""
        now = self._db.clock.now()
        async with self._db.read() as conn:
            due = await store.due_lots(conn, now, self._batch_max)
        facts = [
            SettlementFact(
                capture_id=lot.capture_id, merchant_id=lot.merchant_id, currency=lot.currency, settle_time=lot.due_time
            )
            for lot in due
        ]
        await asyncio.gather(*(self.post_fact(fact) for fact in facts))
        return len(facts)

    async def void_expired(self) -> int:
        """Give back what expired holds still hold. Returns how many."""
        now = self._db.clock.now()
        async with self._db.read() as conn:
            ids = await store.expired_pendings(conn, now, self._batch_max)
            origins = await store.transfers(conn, ids) if ids else {}
        if not ids:
            return 0
        verdicts = await self.post([expiry_of(origins[identifier], now) for identifier in ids])
        return sum(verdict is Verdict.CREATED for verdict, _ in verdicts)


def _apply(sheet: Sheet, job: Job, stored: list[Transfer]) -> Posted:
    if job.fact is None:
        return Posted(sheet.post(job.transfers), [])
    verdict, written = book(sheet, job.fact, [*stored, *sheet.written])
    if verdict is Verdict.EXISTS:
        key = related_keys(job.fact)[0]
        written = [t for t in sheet.known.values() if t.fact_id == key]
    return Posted([(verdict, "")], written)


def _captures(facts: list[Fact], keys: list[tuple[str, str]], stored: list[Transfer]) -> list[tuple[str, str]]:
    """Return (capture id, merchant id) of every lot that the facts may touch."""
    captures = [(t.fact_id, owner_of(f)) for f in facts for t in stored if t.fact_id.startswith("cap_")]
    captures += [(c.capture_id, c.merchant_id) for f in facts if isinstance(f, RefundCreatedFact) for c in f.captures]
    captures += [(key, owner) for key, owner in keys if key.startswith("cap_") and ":" not in key]
    captures += [
        (t.code[t.code.index(".cap_") + 1 :], owner_of(f))
        for f in facts
        for t in stored
        if t.code.startswith("refund.") and ".cap_" in t.code
    ]
    return captures


def _resolve(job: Job, *, result: Posted | None = None, error: Exception | None = None) -> None:
    if job.done.done():
        return  # its caller has left
    if error is not None:
        job.done.set_exception(error)
    elif result is not None:
        job.done.set_result(result)
