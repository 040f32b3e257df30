"""The database of one domain: engine, unit of work, presence.

SQL is written as SQL (docs/adr/0004): a state change is one visible statement with its expected version. A unit of work is
one transaction; none spans a network call, which an architecture test checks.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from servers.kernel.clock import Clock
from servers.kernel.errors import ConcurrentUpdate, Refusal
from servers.kernel.invariant import invariant
from servers.runtime.idempotency import IdempotencyStore, IdempotentRequest
from servers.runtime.jobs import SCHEMA, JobQueue, deferring_app
from servers.runtime.outbound import OutboundStore
from servers.runtime.outbox import Outbox
from servers.runtime.sealed import Sealer
from servers.runtime.sql import Closing, Statement, text

PING_AFTER_SECONDS = 1.0
PREPARED_MAX = 1_000
"""More than a domain has statements: with fewer, each would push out another that is needed soon."""
PRESENCE_SECONDS = 0.5
PRESENCE_CLASS = 7701  # the advisory-lock class in which every live process holds the lock of its instance number
_BEGIN: Final[Statement] = ("BEGIN", ())
_COMMIT: Final[Statement] = ("COMMIT", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Bounds of one domain's connections."""

    application_name: str
    pool_size: int = 8
    pool_wait_seconds: float = 5.0
    lock_timeout_ms: int = 4000
    statement_timeout_ms: int = 5000


def one_row(rowcount: int, resource: str) -> None:
    """Raise ConcurrentUpdate unless exactly one row was changed: somebody else had the version before."""
    if rowcount != 1:
        raise ConcurrentUpdate(resource)


def engine_for(url: str, options: DatabaseOptions) -> AsyncEngine:
    """Return an engine whose every session has lock and statement time-outs and runs in UTC."""
    session = (
        f"-c lock_timeout={options.lock_timeout_ms} -c statement_timeout={options.statement_timeout_ms}"
        f" -c idle_in_transaction_session_timeout=30000 -c TimeZone=UTC -c search_path=public,{SCHEMA}"
    )
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.pool_wait_seconds,
        connect_args={"options": session, "application_name": options.application_name, "connect_timeout": 5},
    )
    _tend(engine)
    return engine


class _Opening(psycopg.AsyncCursor[Any]):
    """Sends a transaction's first statement together with its BEGIN: the driver would wait for that one's answer before."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        driver = self.connection
        if driver.autocommit or driver.pgconn.transaction_status != TransactionStatus.IDLE:
            return await super().execute(query, params, **options)
        async with driver.pipeline():
            return await super().execute(query, params, **options)


def _tend(engine: AsyncEngine) -> None:
    """Have every statement of the domain stay prepared, and ping only connections that nobody has used for a while: a ping each
    time would be a sixth of a payment's round trips. One that broke since then fails its first statement, and takes the others of
    its age with it."""

    @event.listens_for(engine.sync_engine, "connect")
    def remember(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        driver = connection.driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        driver.prepared_max = PREPARED_MAX
        driver.cursor_factory = _Opening
        record.info["used"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkin")
    def used(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        if time.monotonic() - record.info["used"] < PING_AFTER_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


class Database:
    """One domain's database and what a unit of work on it needs."""

    def __init__(self, engine: AsyncEngine, *, domain: str, clock: Clock, sealer: Sealer) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.domain = domain
        self.clock = clock
        self.sealer = sealer
        self.instance = secrets.randbelow(2**31)
        self.on_outbox: Callable[[], None] = lambda: None
        self.job_app = deferring_app()
        self._presence: AsyncConnection | None = None

    def uow(self) -> UnitOfWork:
        """Return a unit of work: `async with db.uow() as uow`."""
        return UnitOfWork(self)

    def lane(self) -> Lane:
        """Return a connection for one task that commits all the time."""
        return Lane(self)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection on which each statement commits by itself, which spares a BEGIN and a COMMIT. What belongs
        together, an event or a job beside it included, is a unit of work's."""
        async with self._autocommit.connect() as conn:
            yield conn

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection for reading: each statement sees what is committed when it begins, and needs no transaction."""
        return self.autocommit()

    async def announce(self) -> None:
        """Hold this instance's advisory lock for as long as the process lives.

        A same-key call may so tell at once that the process which claimed the key is dead, and resume, instead of waiting
        for its lease to end: Postgres drops the lock with the connection.
        """
        instance = secrets.randbelow(2**31)
        self._presence = await self._autocommit.connect()
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
                    await lost.invalidate()
                    await lost.close()

    async def dispose(self) -> None:
        """Close every connection."""
        if self._presence is not None:
            await self._presence.close()
        await self.engine.dispose()


class Lane:
    """One connection kept by one task, which has one transaction after another on it.

    It spares what a unit of work pays each time: the pool's checkout and ping and, for statements that go straight to the driver,
    SQLAlchemy's part and most of the waiting. Statements that need not wait for each other's answers travel together (libpq's
    pipeline mode), BEGIN and COMMIT with them. A connection that broke is replaced at the next use.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._open = False
        self._begun = False
        self._closing: Closing = []
        self._conn: AsyncConnection
        self._driver: psycopg.AsyncConnection[Any]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Commit on a clean exit, roll back on an exception. The driver's errors leave as SQLAlchemy's."""
        await self._connect()
        self._begun, self._closing = False, []
        try:
            yield self
            await self._commit()
        except psycopg.Error as error:
            lost = self._driver.broken
            await self._abandon()
            raise _as_sqlalchemys(error, lost=lost) from error
        except BaseException:
            await self._abandon()
            raise

    async def run(self, *statements: Statement) -> list[list[tuple[Any, ...]]]:
        """Send statements together; return the rows of each, none for one that returns none."""
        sent = await self._send(statements)
        return [[] if cursor.description is None else await cursor.fetchall() for cursor in sent]

    def close_with(self, *statements: Statement) -> None:
        """Send statements whose answers nobody reads together with the COMMIT: it is not carried out where one of them fails."""
        self._closing += statements

    async def session(self) -> AsyncConnection:
        """Return the connection as SQLAlchemy's, inside the transaction."""
        if not self._begun:
            await self._send(())
        return self._conn

    async def close(self) -> None:
        """Give the connection back."""
        if self._open:
            self._open = False
            await self._conn.close()

    async def _send(self, statements: Sequence[Statement]) -> list[psycopg.AsyncCursor[tuple[Any, ...]]]:
        opening = () if self._begun else (_BEGIN,)
        self._begun = True
        sent = await _send_together(self._driver, (*opening, *statements))
        return sent[len(opening) :]

    async def _commit(self) -> None:
        if not self._begun and not self._closing:
            return
        *_, done = await self._send([*self._closing, _COMMIT])
        _check_commit(done)
        if self._conn.in_transaction():
            await self._conn.commit()  # SQLAlchemy's own state: nothing is sent any more

    async def _connect(self) -> None:
        if self._open and not self._driver.closed and not self._conn.invalidated:
            return
        await self.close()
        self._conn = await self._db.engine.connect()
        # BEGIN and COMMIT are sent here: the driver's own wait for their answers.
        await self._conn.execution_options(isolation_level="AUTOCOMMIT")
        self._driver = await _driver_of(self._conn)
        self._open = True

    async def _abandon(self) -> None:
        """Roll back. Where that fails the connection is dropped: Postgres rolls back what it held."""
        try:
            await self._driver.rollback()
            await self._conn.rollback()
        except (psycopg.Error, DBAPIError):
            self._open = False
            await self._conn.invalidate()
            await self._conn.close()


async def _driver_of(conn: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    driver = (await conn.get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    return driver


async def _send_together(
    driver: psycopg.AsyncConnection[Any], statements: Sequence[Statement]
) -> list[psycopg.AsyncCursor[tuple[Any, ...]]]:
    async with driver.pipeline():
        return [await driver.execute(text, values) for text, values in statements]


def _check_commit(done: psycopg.AsyncCursor[Any]) -> None:
    # The answer to COMMIT in a transaction that has failed is ROLLBACK, and no error.
    invariant(done.statusmessage == "COMMIT", "the transaction had failed before its commit")


def _as_sqlalchemys(error: psycopg.Error, *, lost: bool) -> Exception:
    return DBAPIError.instance("", None, error, psycopg.Error, connection_invalidated=lost)


class UnitOfWork:
    """One transaction: commits on a clean exit, rolls back on an exception. Events and stored answers are sent with the COMMIT."""

    conn: AsyncConnection

    def __init__(self, db: Database) -> None:
        self._db = db
        self._closing: Closing = []
        self._kept: Refusal | None = None

    async def __aenter__(self) -> Self:
        self.conn = await self._db.engine.connect()
        try:
            await self.conn.begin()
        except BaseException:
            await self.conn.close()
            raise
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
            if self.idempotency.rehearsing:
                await self.conn.rollback()
            elif error is None or error is self._kept:
                await self._commit()
                if self.outbox.written:
                    self._db.on_outbox()
            else:
                await self.conn.rollback()
        finally:
            await self.conn.close()

    async def _commit(self) -> None:
        if self._closing:
            driver = await _driver_of(self.conn)
            try:
                *_, done = await _send_together(driver, (*self._closing, _COMMIT))
                _check_commit(done)
            except psycopg.Error as error:
                if driver.broken:
                    await self.conn.invalidate()
                raise _as_sqlalchemys(error, lost=driver.broken) from error
        await self.conn.commit()  # after a COMMIT of ours SQLAlchemy's own state: nothing is sent any more

    def rehearse(self) -> None:
        """Make sure that nothing of this transaction is written, however it ends."""
        self.idempotency.rehearsing = True

    @asynccontextmanager
    async def refusals(self, request: IdempotentRequest) -> AsyncIterator[None]:
        """Undo the body on a refusal, keep the refusal as the key's answer, commit, and raise it on.

        A refusal that trying again may cure (ABORTED, UNAVAILABLE, RESOURCE_EXHAUSTED) is not kept: the whole transaction,
        the claim with it, rolls back.
        """
        savepoint, before = await self.conn.begin_nested(), len(self._closing)
        try:
            yield
        except Refusal as refusal:
            if refusal.stored:
                await savepoint.rollback()
                del self._closing[before:]
                self.idempotency.refuse(request, refusal)
                self._kept = refusal
            raise
        # The savepoint ends with the transaction: releasing it would be one round trip more.
        invariant(savepoint.is_active, "the savepoint ended inside its block")
