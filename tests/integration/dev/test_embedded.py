"""The embedded Postgres and Valkey by themselves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dev import postgres
from dev.paths import StackRefused
from dev.postgres import EmbeddedPostgres
from dev.processes import tethered
from dev.valkey import EmbeddedValkey
from tests.support.ports import free_port

DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """Give a test a server that it may start; it is stopped in any case."""
    server = EmbeddedPostgres(tmp_path / "postgres", port=free_port(), password="p%w@d")
    try:
        yield server
    finally:
        server.stop()
        (server.folder / "shelter").unlink(
            missing_ok=True
        )  # as root its data lies elsewhere, and is cleared without this


def ask(server: EmbeddedPostgres, *statements: str) -> list[object]:
    """Return the first value that each statement answers."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        return [(connection.execute(statement).fetchone() or (None,))[0] for statement in statements]


def test_postgres_is_durable_and_asks_for_a_password(server: EmbeddedPostgres) -> None:
    server.start()
    assert ask(server, *(f"SHOW {name}" for name in DURABLE)) == ["on", "on", "on"]
    assert ask(server, "SHOW max_connections", "SHOW password_encryption") == ["200", "scram-sha-256"]
    with pytest.raises(StackRefused, match="does not know our password"):
        postgres.answers(server.url(password="wrong"))


def test_postgres_keeps_its_data(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    server.stop()
    server.start()
    assert ask(server, "SELECT count(*) FROM kept") == [1]


def test_data_that_another_server_serves_is_refused(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    with pytest.raises(StackRefused, match=r"still serves .*: stop it with `kill -INT \d+`"):
        EmbeddedPostgres(tmp_path / "postgres", port=free_port(), password="p%w@d").prepare()
    assert ask(server, "SELECT 1") == [1]


def test_what_a_killed_initdb_left_is_made_anew(server: EmbeddedPostgres) -> None:
    server.prepare()
    half = server.data.rename(server.data.with_name("data.new"))
    (half / "global" / "pg_control").unlink()
    server.start()
    assert ask(server, "SELECT 1") == [1]
    assert not half.exists()


def test_data_of_another_version_is_refused(server: EmbeddedPostgres) -> None:
    server.prepare()
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackRefused, match="written by Postgres 17"):
        server.prepare()


async def test_valkey_answers_only_who_knows_the_password(tmp_path: Path) -> None:
    port = free_port()
    server, stranger = (EmbeddedValkey(tmp_path / word, port=port, password=word) for word in ("secret", "wrong"))
    assert not await server.answers()
    command = tethered(server.command(), signal.SIGKILL)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(5):
            while not await server.answers():
                await asyncio.sleep(0.02)
        assert not await stranger.answers()
        assert all("requirepass" not in word for word in command), "everybody can read command lines"
        assert (tmp_path / "secret" / "valkey.conf").stat().st_mode & 0o777 == 0o600
    finally:
        process.terminate()
        await process.wait()
