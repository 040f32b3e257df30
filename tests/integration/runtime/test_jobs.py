"""Jobs: they exist exactly when their transaction committed, are tried again, and outlive the worker that had them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from servers.runtime import jobs
from servers.runtime.db import Database
from servers.runtime.jobs import Job, Worker
from tests.support.postgres import MakeDatabase, TestPostgres


@asynccontextmanager
async def working(db: Database, *kinds: Job) -> AsyncIterator[None]:
    """Run a worker meanwhile."""
    url = db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    task = asyncio.create_task(Worker(url, kinds, application_name="test").run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something, within a bound."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


async def statuses(db: Database) -> list[str]:
    """Return the states of the stored jobs."""
    async with db.read() as conn:
        return list((await conn.execute(text("SELECT status::text FROM procrastinate_jobs ORDER BY id"))).scalars())


async def test_a_job_runs_when_its_transaction_committed_and_only_then(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    seen: list[str] = []

    async def note(*, name: str) -> None:
        seen.append(name)

    with pytest.raises(LookupError):
        async with db.uow() as uow:
            await uow.jobs.defer("test.note", name="rolled back")
            raise LookupError
    async with db.uow() as uow:
        await uow.jobs.defer("test.note", name="committed")
    async with working(db, Job(name="test.note", run=note)):
        await until(lambda: bool(seen))
        await asyncio.sleep(0.1)
    assert seen == ["committed"]
    assert await statuses(db) == []


async def test_a_job_that_fails_is_tried_again_and_then_kept_as_failed(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BACKOFF_BASE_SECONDS", 0)
    db = await make_database("payments")
    tries = {"cured": 0, "hopeless": 0}

    async def work(*, name: str) -> None:
        tries[name] += 1
        if name == "hopeless" or tries[name] < 2:
            raise ConnectionError

    async with db.uow() as uow:
        await uow.jobs.defer("test.work", name="cured")
        await uow.jobs.defer("test.work", name="hopeless")
    async with working(db, Job(name="test.work", run=work, tries=3)):
        await until(lambda: tries == {"cured": 2, "hopeless": 3})
        await asyncio.sleep(0.2)
    assert await statuses(db) == ["failed"]


async def test_the_job_of_a_dead_worker_is_run_by_another(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "STALLED_SECONDS", 0.4)
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 0.1)
    db = await make_database("payments")
    seen: list[str] = []

    async def note(*, name: str) -> None:
        seen.append(name)

    async with db.uow() as uow:
        await uow.jobs.defer("test.note", name="left behind")
        worker = await uow.conn.scalar(text("SELECT worker_id FROM procrastinate_register_worker_v1()"))
        await uow.conn.execute(
            text("UPDATE procrastinate_jobs SET status = 'doing', worker_id = :worker"), {"worker": worker}
        )
        await uow.conn.execute(text("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'"))
    async with working(db, Job(name="test.note", run=note)):
        await until(lambda: bool(seen))
    assert seen == ["left behind"]


async def test_a_worker_that_ends_by_itself_is_replaced(
    make_database: MakeDatabase, postgres: TestPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(jobs, "RECONNECT_SECONDS", 0.1)
    db = await make_database("payments")
    name = db.engine.url.database
    assert name is not None
    seen: list[str] = []

    async def note(*, name: str) -> None:
        seen.append(name)

    async def workers() -> int:
        async with db.read() as conn:
            return int(await conn.scalar(text("SELECT count(*) FROM procrastinate_workers")) or 0)

    async def yearly() -> None:
        seen.append("a year is over")

    # As in every server there is a periodic job, too: without one, the worker does not watch its own heartbeat.
    kinds = (Job(name="test.note", run=note), Job(name="test.yearly", run=yearly, cron="0 0 1 1 *"))
    async with working(db, *kinds), asyncio.timeout(15):
        while not await workers():
            await asyncio.sleep(0.02)
        # A heartbeat that fails stops the worker in good order: it signs off, and raises nothing.
        postgres.execute("REVOKE EXECUTE ON FUNCTION jobs.procrastinate_update_heartbeat_v1 FROM PUBLIC", name)
        while await workers():
            await asyncio.sleep(0.02)
        postgres.execute("GRANT EXECUTE ON FUNCTION jobs.procrastinate_update_heartbeat_v1 TO PUBLIC", name)
        async with db.uow() as uow:
            await uow.jobs.defer("test.note", name="after it")
        await until(lambda: bool(seen))
    assert seen == ["after it"]


async def test_a_periodic_job_runs_by_itself(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    seen: list[int] = []

    async def tick() -> None:
        seen.append(1)

    async with working(db, Job(name="test.tick", run=tick, cron="* * * * * *")):
        await until(lambda: len(seen) >= 2)


async def test_the_last_try_gives_up_once_with_what_went_wrong(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BACKOFF_BASE_SECONDS", 0)
    db = await make_database("payments")
    tried: list[str] = []
    given_up: list[tuple[str, str]] = []

    async def work(*, name: str) -> None:
        tried.append(name)
        if name == "hopeless":
            raise ConnectionError("no route")

    async def give_up(*, name: str, error: str) -> None:
        given_up.append((name, error))

    async with db.uow() as uow:
        await uow.jobs.defer("test.work", name="hopeless")
        await uow.jobs.defer("test.work", name="fine")
    async with working(db, Job(name="test.work", run=work, tries=3, give_up=give_up)):
        await until(lambda: bool(given_up) and "fine" in tried)
        await asyncio.sleep(0.2)
    assert given_up == [("hopeless", "ConnectionError: no route")]
    assert tried.count("hopeless") == 3
    assert await statuses(db) == ["failed"]


async def test_a_job_that_nobody_could_give_up_on_is_tried_until_one_of_the_two_goes_well(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BACKOFF_BASE_SECONDS", 0)
    db = await make_database("payments")
    tries = {"run": 0, "give up": 0}

    async def work() -> None:
        tries["run"] += 1
        raise ConnectionError

    async def give_up(*, error: str) -> None:
        tries["give up"] += 1
        if tries["give up"] < 3:
            raise ConnectionError

    async with db.uow() as uow:
        await uow.jobs.defer("test.work")
    async with working(db, Job(name="test.work", run=work, tries=1, give_up=give_up)):
        await until(lambda: tries["give up"] == 3)
        await asyncio.sleep(0.2)
    assert tries == {"run": 3, "give up": 3}
    assert await statuses(db) == ["failed"]


async def test_a_job_with_one_try_is_tried_once(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BACKOFF_BASE_SECONDS", 0)
    db = await make_database("payments")
    tried: list[int] = []

    async def work() -> None:
        tried.append(1)
        raise ConnectionError

    async with db.uow() as uow:
        await uow.jobs.defer("test.work")
    async with working(db, Job(name="test.work", run=work, tries=1)):
        await until(lambda: bool(tried))
        await asyncio.sleep(1)
    assert tried == [1]


async def test_a_job_may_run_when_the_worker_starts(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    seen: list[int] = []

    async def tick() -> None:
        seen.append(1)

    async with working(db, Job(name="test.tick", run=tick, cron="0 0 1 1 *", at_start=True)):
        await until(lambda: bool(seen))
    assert seen == [1]
