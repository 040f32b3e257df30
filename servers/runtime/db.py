"""The database of one domain: engine, unit of work, presence.

SQL is written as SQL (docs/adr/0004): a state change is one visible statement with its expected version. A unit of work is
one transaction; none spans a network call, which an architecture test checks.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from servers.kernel.clock import Clock
from servers.kernel.errors import Refusal
from servers.runtime.connection import Connection, connected
from servers.runtime.idempotency import IdempotencyStore, IdempotentRequest
from servers.runtime.jobs import JobQueue, deferring_app
from servers.runtime.outbound import OutboundStore
from servers.runtime.outbox import Outbox
from servers.runtime.sealed import Sealer
from servers.runtime.sql import Closing, Statement, text

PRESENCE_SECONDS = 0.5
PRESENCE_CLASS = 7701  # the advisory-lock class in which every live process holds the lock of its instance number


class Database:
    """One domain's database and what a unit of work on it needs."""

    def __init__(self, engine: AsyncEngine, *, domain: str, clock: Clock, sealer: Sealer) -> None:
        self.engine = engine
        self.domain = domain
        self.clock = clock
        self.sealer = sealer
        self.instance = secrets.randbelow(2**31)
        self.on_outbox: Callable[[], None] = lambda: None
        self.job_app = deferring_app()
        self._presence: Connection | None = None

    def uow(self) -> UnitOfWork:
        """Return a unit of work: `async with db.uow() as uow`."""
        return UnitOfWork(self)

    def lane(self) -> Lane:
        """Return a connection for one task that commits all the time."""
        return Lane(self)

    def autocommit(self) -> AbstractAsyncContextManager[Connection]:
        """Return a connection on which each statement commits by itself, which spares a BEGIN and a COMMIT. What belongs
        together, an event or a job beside it included, is a unit of work's."""
        return connected(self.engine)

    def read(self) -> AbstractAsyncContextManager[Connection]:
        """Return a connection for reading: each statement sees what is committed when it begins, and needs no transaction."""
        return connected(self.engine)

    async def announce(self) -> None:
        """Hold this instance's advisory lock for as long as the process lives.

        A same-key call may so tell at once that the process which claimed the key is dead, and resume, instead of waiting
        for its lease to end: Postgres drops the lock with the connection.
        """
        instance = secrets.randbelow(2**31)
        self._presence = await Connection.of(self.engine)
        await self._presence.execute(
            text("SELECT pg_advisory_lock(:class, :instance)"), {"class": PRESENCE_CLASS, "instance": instance}
        )
        # A number of its own each time: calls that failed together with the database could not give their keys back, and whoever
        # asks again must not wait for their leases.
        self.instance = instance

    async def keep_announced(self) -> None:
        """Announce the process again where its lock was lost with its connection, until cancelled: without it, the keys of all
        later calls would look as if their process were dead, and same-key calls would run beside them."""
        while True:
            await asyncio.sleep(PRESENCE_SECONDS)
            try:
                if self._presence is None:
                    await self.announce()
                else:
                    await self._presence.execute(text("SELECT 1"))
            except SQLAlchemyError:
                lost, self._presence = self._presence, None
                if lost is not None:
                    await lost.drop()

    async def dispose(self) -> None:
        """Close every connection."""
        if self._presence is not None:
            await self._presence.close()
        await self.engine.dispose()


class Lane:
    """One connection kept by one task, which has one transaction after another on it: it spares what a unit of work pays each time
    for the pool's checkout. A connection that broke is replaced at the next use."""

    conn: Connection
    """The connection, inside a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._closing: Closing = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Commit on a clean exit, roll back on an exception."""
        conn = await self._connected()
        self._closing = []
        conn.begin()
        try:
            yield self
            await conn.commit(self._closing)
        finally:
            await conn.rollback()  # nothing, after a commit

    def close_with(self, *statements: Statement) -> None:
        """Send statements whose answers nobody reads together with the COMMIT: it is not carried out where one of them fails."""
        self._closing += statements

    async def close(self) -> None:
        """Give the connection back."""
        if hasattr(self, "conn"):
            await self.conn.close()
            del self.conn

    async def _connected(self) -> Connection:
        if not hasattr(self, "conn") or not self.conn.usable:
            await self.close()
            self.conn = await Connection.of(self._db.engine)
        return self.conn


class UnitOfWork:
    """One transaction: commits on a clean exit, rolls back on an exception. Events and stored answers are sent with the COMMIT."""

    conn: Connection

    def __init__(self, db: Database) -> None:
        self._db = db
        self._closing: Closing = []
        self._kept: Refusal | None = None

    async def __aenter__(self) -> Self:
        self.conn = await Connection.of(self._db.engine)
        self.conn.begin()
        self.idempotency = IdempotencyStore(
            self.conn, self._closing, clock=self._db.clock, sealer=self._db.sealer, owner=self._db.instance
        )
        self.outbox = Outbox(self._closing, domain=self._db.domain, clock=self._db.clock)
        self.outbound = OutboundStore(self.conn, clock=self._db.clock)
        self.jobs = JobQueue(self.conn, self._db.job_app)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.idempotency.rehearsing and (error is None or error is self._kept):
                await self.conn.commit(self._closing)
                if self.outbox.written:
                    self._db.on_outbox()
        finally:
            await self.conn.close()

    def rehearse(self) -> None:
        """Make sure that nothing of this transaction is written, however it ends."""
        self.idempotency.rehearsing = True

    @asynccontextmanager
    async def refusals(self, request: IdempotentRequest) -> AsyncIterator[None]:
        """Undo the body on a refusal, keep the refusal as the key's answer, commit, and raise it on.

        A refusal that trying again may cure (ABORTED, UNAVAILABLE, RESOURCE_EXHAUSTED) is not kept: the whole transaction,
        the claim with it, rolls back.
        """
        self.conn.savepoint("refusal")
        before = len(self._closing)
        try:
            yield
        except Refusal as refusal:
            if refusal.stored:
                await self.conn.undo_to("refusal")
                del self._closing[before:]
                self.idempotency.refuse(request, refusal)
                self._kept = refusal
            raise
