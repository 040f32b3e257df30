"""Connections of one database: SQLAlchemy keeps them in its pool and parses the statements, the driver carries these out.

SQLAlchemy's own way from a statement to its rows costs more of the processor than the driver's and libpq's together (measured:
190 µs a statement instead of 87), and a payment has some sixty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, LiteralString

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import AsyncRowFactory, namedtuple_row, tuple_row
from sqlalchemy import TextClause, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from servers.kernel.errors import ConcurrentUpdate
from servers.kernel.invariant import invariant
from servers.runtime.sql import Row, Statement, Values

SEARCH_PATH: Final = "public,jobs"
PING_AFTER_SECONDS: Final = 1.0
PREPARED_MAX: Final = 1_000
"""More than a domain has statements: with fewer, each would push out another that is needed soon."""
_COMMIT: Final[Statement] = ("COMMIT", ())
_dropping: Final[set[asyncio.Future[None]]] = set()
_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy's own


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Bounds of one domain's connections."""

    application_name: str
    pool_size: int = 8
    pool_wait_seconds: float = 5.0
    lock_timeout_ms: int = 4000
    statement_timeout_ms: int = 5000


def engine_for(url: str, options: DatabaseOptions) -> AsyncEngine:
    """Return an engine whose every session has lock and statement time-outs and runs in UTC, and whose every statement commits by
    itself outside of a `Connection`'s transaction."""
    session = (
        f"-c lock_timeout={options.lock_timeout_ms} -c statement_timeout={options.statement_timeout_ms}"
        f" -c idle_in_transaction_session_timeout=30000 -c TimeZone=UTC -c search_path={SEARCH_PATH}"
        " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
    )
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.pool_wait_seconds,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,  # `Connection.close` gives nothing back that stands in a transaction
        connect_args={"options": session, "application_name": options.application_name, "connect_timeout": 5},
    )
    _tend(engine)
    return engine


def _tend(engine: AsyncEngine) -> None:
    """Have every statement of the domain stay prepared, and ping only connections that nobody has used for a while: a ping each
    time would be a sixth of a payment's round trips. One that broke since then fails its first statement; all others that were
    last used before that are pinged too."""
    lost_at = 0.0

    @event.listens_for(engine.sync_engine, "connect")
    def remember(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        driver = connection.driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        driver.prepared_max = PREPARED_MAX
        record.info["used"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkin")
    def used(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "invalidate")
    def lost(connection: DBAPIConnection, record: ConnectionPoolEntry, error: BaseException | None) -> None:
        nonlocal lost_at
        if error is not None:
            lost_at = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        last = record.info["used"]
        if last > lost_at and time.monotonic() - last < PING_AFTER_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


class Result:
    """What a statement returned: how many rows it concerns, and those that it reads."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Row], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def all(self) -> list[Row]:
        """Return every row."""
        return self._rows

    def one(self) -> Row:
        """Return the row: there is exactly one."""
        invariant(len(self._rows) == 1, "a statement did not return one row", rows=len(self._rows))
        return self._rows[0]

    def one_or_none(self) -> Row | None:
        """Return the row, where there is one: there are no two."""
        return self.one() if self._rows else None

    def scalar(self) -> Any:
        """Return the first column of the first row, or None."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """Return the first column of the row: there is exactly one."""
        return self.one()[0]

    def scalars(self) -> list[Any]:
        """Return the first column of every row."""
        return [row[0] for row in self._rows]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What is sent together with the next statement."""

    text: LiteralString
    values: Values = ()
    one_of: str = ""
    """The resource of which it must change exactly one row."""
    writes: bool = False


class Connection:
    """One of the pool's connections. Each statement commits by itself, unless it stands between `begin` and `commit`.

    What need not wait for an answer travels with what does: BEGIN, SAVEPOINT and what is written with the statement after them, the
    last statements with COMMIT (libpq's pipeline mode). The driver's errors leave as SQLAlchemy's. A connection that broke, or
    whose task was cancelled in the middle of a statement, does not go back to the pool.
    """

    def __init__(self, pooled: AsyncConnection, driver: psycopg.AsyncConnection[Any]) -> None:
        self._pooled = pooled
        self._driver = driver
        self._ahead: list[_Waiting] = []
        self._begun = False
        self._is_settled = True
        """Whether what was sent last has ended: it has not where its task was cancelled, and nobody knows how far it came."""

    @classmethod
    async def of(cls, engine: AsyncEngine) -> Connection:
        """Check one out; raises SQLAlchemy's TimeoutError where all are in use for too long."""
        pooled = await engine.connect()
        driver = (await pooled.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        return cls(pooled, driver)

    @property
    def usable(self) -> bool:
        """Whether it may still be used."""
        return self._is_settled and not self._driver.closed

    async def execute(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Result:
        """Carry out a statement and return what it returned."""
        query = _as_the_driver_takes_it(statement)
        if self._ahead:
            [cursor] = await self._send([(query, values or {})], namedtuple_row)
        else:
            cursor = await self._send_one(query, values or {})
        return await _result(cursor)

    async def execute_together(self, statements: Sequence[TextClause], values: Mapping[str, Any]) -> list[Result]:
        """Carry out statements one after the other, of which none waits for the caller to see what the one before it returned."""
        sent = [(_as_the_driver_takes_it(statement), values) for statement in statements]
        return [await _result(cursor) for cursor in await self._send(sent, namedtuple_row)]

    async def execute_each(self, statement: TextClause, rows: Iterable[Mapping[str, Any]]) -> None:
        """Carry out a statement for each of some rows, in their order and together."""
        query = _as_the_driver_takes_it(statement)
        await self._send([(query, row) for row in rows])

    async def scalar(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Any:
        """Carry out a statement and return the first column of its first row, or None."""
        return (await self.execute(statement, values)).scalar()

    async def send(self, *statements: Statement) -> list[list[tuple[Any, ...]]]:
        """Send statements together; return the rows of each, none for one that returns none."""
        return [await _rows(cursor) for cursor in await self._send(statements)]

    def begin(self) -> None:
        """Open a transaction, with the next statement."""
        self._begun = True
        self._ahead.append(_Waiting("BEGIN"))

    def write(self, statement: TextClause, values: Mapping[str, Any], *, one_of: str = "") -> None:
        """Write in a transaction, with the next statement: whatever that reads sees it. What it violates is raised there, or by the
        commit; so is ConcurrentUpdate where it must change exactly one row, the one of the resource `one_of`, and did not:
        somebody else had the version before."""
        invariant(self._begun, "what waits for a commit is written in a transaction")
        self._ahead.append(_Waiting(_as_the_driver_takes_it(statement), values, one_of, writes=True))

    def savepoint(self, name: LiteralString) -> None:
        """Set a savepoint, with the next statement. It ends with the transaction: releasing it would be one round trip more."""
        self._ahead.append(_Waiting("SAVEPOINT " + name))

    async def undo_to(self, name: LiteralString) -> None:
        """Undo what was done since a savepoint."""
        savepoint = _Waiting("SAVEPOINT " + name)
        if savepoint in self._ahead:
            del self._ahead[self._ahead.index(savepoint) + 1 :]
        else:
            self._ahead.clear()
            await self.send(("ROLLBACK TO SAVEPOINT " + name, ()))

    async def driver(self) -> psycopg.AsyncConnection[Any]:
        """Return the driver's connection, in the transaction, for a library that works on such."""
        if self._ahead:
            await self.send()
        return self._driver

    async def commit(self, closing: Sequence[Statement] = ()) -> None:
        """Commit, and send statements whose answers nobody reads together with the COMMIT, which is not carried out where one of
        them fails. Raises InvariantBroken where the transaction had failed before."""
        self._begun = False
        if not closing and not any(waiting.writes for waiting in self._ahead) and self._idle:
            self._ahead.clear()
            return
        if any(waiting.one_of for waiting in self._ahead):
            await self._send(())
        *_, done = await self._send((*closing, _COMMIT))
        # The answer to COMMIT in a transaction that has failed is ROLLBACK, and no error.
        invariant(done.statusmessage == "COMMIT", "the transaction had failed before its commit")

    async def rollback(self) -> None:
        """Undo the transaction. Where that fails the connection is dropped when it is closed: Postgres undoes what it held."""
        self._begun = False
        self._ahead.clear()
        if not self.usable or self._idle:
            return
        self._is_settled = False
        with suppress(psycopg.Error):
            await self._driver.rollback()
            self._is_settled = True

    async def close(self) -> None:
        """Undo what was not committed, and give it back to the pool, or drop it where it cannot work on."""
        if self._pooled.closed:
            return
        try:
            await self.rollback()
        finally:
            await self._give_back()

    async def _give_back(self) -> None:
        if self.usable:
            await self._pooled.close()
        else:
            # To its end, however often the task is cancelled: the pool would count it as in use for ever.
            dropping = asyncio.ensure_future(self.drop())
            _dropping.add(dropping)
            dropping.add_done_callback(_dropping.discard)
            await asyncio.shield(dropping)

    async def drop(self) -> None:
        """Close it for good, and with it whatever its session holds."""
        await self._pooled.invalidate(exception=ConnectionError() if self._driver.broken else None)
        await self._pooled.close()

    @property
    def _idle(self) -> bool:
        return self._driver.pgconn.transaction_status == TransactionStatus.IDLE

    async def _send(
        self, statements: Sequence[Statement], row_factory: AsyncRowFactory[Any] = tuple_row
    ) -> list[psycopg.AsyncCursor[Any]]:
        ahead, self._ahead = self._ahead, []
        driver = self._driver
        self._is_settled = False
        try:
            async with driver.pipeline():
                before = [await driver.execute(waiting.text, waiting.values) for waiting in ahead]
                sent = [
                    await driver.cursor(row_factory=row_factory).execute(text, values) for text, values in statements
                ]
        except psycopg.Error as error:
            raise self._failed(error) from error
        self._is_settled = True
        for waiting, cursor in zip(ahead, before, strict=True):
            if waiting.one_of and cursor.rowcount != 1:
                raise ConcurrentUpdate(waiting.one_of)
        return sent

    async def _send_one(self, text: LiteralString, values: Values) -> psycopg.AsyncCursor[Any]:
        self._is_settled = False
        try:
            cursor = await self._driver.cursor(row_factory=namedtuple_row).execute(text, values)
        except psycopg.Error as error:
            raise self._failed(error) from error
        self._is_settled = True
        return cursor

    def _failed(self, error: psycopg.Error) -> Exception:
        self._is_settled = True
        return DBAPIError.instance("", None, error, psycopg.Error, connection_invalidated=self._driver.broken)


async def _rows(cursor: psycopg.AsyncCursor[Any]) -> list[Any]:
    # Not `cursor.description`, which makes an object of each column.
    answer = cursor.pgresult
    return await cursor.fetchall() if answer is not None and answer.status == ExecStatus.TUPLES_OK else []


async def _result(cursor: psycopg.AsyncCursor[Any]) -> Result:
    return Result(await _rows(cursor), cursor.rowcount)


@lru_cache(maxsize=4096)
def _as_the_driver_takes_it(statement: TextClause) -> LiteralString:
    return str(statement.compile(dialect=_DIALECT))


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """Yield a connection on which each statement commits by itself."""
    conn = await Connection.of(engine)
    try:
        yield conn
    finally:
        await conn.close()


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """Yield a connection in a transaction: commits on a clean exit, rolls back on an exception."""
    async with connected(engine) as conn:
        conn.begin()
        yield conn
        await conn.commit()
