"""A real Postgres for the session, migrated templates, and a database of its own for each test that asks."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from dev.postgres import EmbeddedPostgres
from servers.kernel.clock import Clock, SystemClock
from servers.runtime.connection import DatabaseOptions, engine_for
from servers.runtime.db import Database
from servers.runtime.migrate import Plan, migrate
from servers.runtime.sealed import Sealer
from tests.support import broken_builds, plans
from tests.support.ports import free_port

PASSWORD: Final = "test-only"
ROLES: Final = ("identity", "payments", "wallets", "notifications", "audit")
_numbers = itertools.count()
_RUN: Final = os.environ.get("PAYMESH_TEST_POSTGRES", "")
"""The port of a server that another run of pytest has started, where this one is a part of it."""


class TestPostgres:
    """The session's server."""

    __test__ = False

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    def admin(self, database: str = "postgres") -> str:
        """Return the superuser's address."""
        return self._server.url(database)

    def url(self, database: str, role: str) -> str:
        """Return a role's address."""
        return self._server.url(database, user=f"paymesh_{role}", password=PASSWORD)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as superuser."""
        engine = create_engine(_psycopg(self.admin(database)), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as conn:
            conn.execute(text(statement))
        engine.dispose()

    def copy(self, template: str) -> str:
        """Return a new database that is a copy of a migrated one."""
        name = f"t{next(_numbers)}_{template}" + (f"_{os.getpid()}" if _RUN else "")
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        if broken_builds.ASKED is not None and broken_builds.ASKED.sql:
            self.execute(broken_builds.ASKED.sql, name)
        return name

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestPostgres]:
    """Start Postgres, without durability: what these tests check does not survive the machine anyway."""
    folder: Path = tmp_path_factory.mktemp("postgres")
    if _RUN:
        yield TestPostgres(EmbeddedPostgres(folder, port=int(_RUN), password=PASSWORD, durable=False))
        return
    server = EmbeddedPostgres(folder, port=free_port(), password=PASSWORD, durable=False)
    server.start()
    try:
        migrate(Plan(admin_url=server.url(), passwords=dict.fromkeys(ROLES, PASSWORD)))
        yield TestPostgres(server)
    finally:
        server.stop()


async def opened(url: str, domain: str, clock: Clock | None = None) -> Database:
    """Return a database as a process of a domain's server opens it: several may open the same one."""
    engine = engine_for(url, DatabaseOptions(application_name="test", pool_size=20))
    sealer = Sealer(base64.b64encode(bytes(32)).decode())
    db = Database(engine, domain=domain, clock=clock or SystemClock(), sealer=sealer)
    await db.announce()
    return db


MakeDatabase = Callable[[str], Awaitable[Database]]


@pytest.fixture
async def make_database(postgres: TestPostgres) -> AsyncIterator[MakeDatabase]:
    """Return a function that makes a domain's database, of its own, with its server's own rights."""
    made: dict[str, Database] = {}
    scanned: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        plans.watch(patch)

        async def make(domain: str) -> Database:
            database = postgres.copy(domain)
            made[database] = await opened(postgres.url(database, domain), domain)
            return made[database]

        yield make
        for name, db in made.items():
            scanned += await plans.scans(postgres.url(name, db.domain), name)
            await db.dispose()
    assert not scanned, "\n".join(scanned)


def _psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
