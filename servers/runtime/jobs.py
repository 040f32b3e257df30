"""Background jobs: procrastinate, in the domain's own database, enqueued in the business transaction.

A job exists if and only if the transaction that deferred it committed. It runs at least once: what it does must be safe to
repeat. Business due dates never live here, because the scheduler goes by the database's clock; they are columns, swept with
`Clock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import procrastinate
import structlog
from opentelemetry import propagate, trace
from procrastinate.exceptions import ProcrastinateException
from prometheus_client import Counter
from psycopg import OperationalError

from servers.runtime.connection import SEARCH_PATH, Connection

POLL_SECONDS: Final = 0.5
PARALLEL: Final = 8
HEARTBEAT_SECONDS: Final = 3.0
STALLED_SECONDS: Final = 12.0
STOP_SECONDS: Final = 3.0
RECONNECT_SECONDS: Final = 2.0
TRIES: Final = 8
BACKOFF_BASE_SECONDS: Final = 2
BACKOFF_SECONDS_MAX: Final = 600
ERROR_LENGTH_MAX: Final = 500

_log = structlog.get_logger("jobs")
_tracer = trace.get_tracer("paymesh.jobs")
_ended = Counter("paymesh_jobs_total", "Background jobs", ["job", "outcome"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A kind of job."""

    name: str
    """`<domain>.<verb>_<noun>`; what `uow.jobs.defer` names."""
    run: Callable[..., Awaitable[None]]
    """Takes the arguments that `defer` was given, all by keyword. Raising means another try, later each time."""
    tries: int = TRIES
    give_up: Callable[..., Awaitable[None]] | None = None
    """What is done when the last try has failed: takes the same arguments, and `error`, what went wrong. Where this fails too, the
    job is tried again until one of the two goes well: nothing ends unnoticed."""
    cron: str = ""
    """When it runs by itself, in cron's five fields or six with seconds; then it takes no arguments."""
    at_start: bool = False
    """Whether it also runs when a worker starts; one that runs by cron only."""


class JobQueue:
    """Defers jobs in one transaction."""

    def __init__(self, conn: Connection, app: procrastinate.App) -> None:
        self._conn = conn
        self._app = app

    async def defer(self, job: str, **arguments: str | int) -> None:
        """Have a job run once this transaction has committed."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        deferrer = self._app.configure_task(job, connection=await self._conn.driver())
        await deferrer.defer_async(traceparent=carrier.get("traceparent", ""), **arguments)


def deferring_app() -> procrastinate.App:
    """Return what `JobQueue` needs: it works on the connection it is given and opens none."""
    return procrastinate.App(connector=procrastinate.PsycopgConnector())


class WorkerEnded(Exception):
    """The worker ended although nobody stopped it."""


class NotGivenUp(Exception):
    """The last try failed, and so did what is done then."""


class _Plan(procrastinate.BaseRetryStrategy):
    """When a job that failed is tried again."""

    def __init__(self, tries: int) -> None:
        self._tries = tries

    def get_retry_decision(
        self, *, exception: BaseException, job: procrastinate.jobs.Job
    ) -> procrastinate.RetryDecision | None:
        """Say when, if at all."""
        if job.attempts + 1 >= self._tries and not isinstance(exception, NotGivenUp):
            return None
        # Bounded before it is a power: a job that nobody can give up on may be tried for days.
        wait = BACKOFF_BASE_SECONDS ** min(job.attempts + 1, 10)
        return procrastinate.RetryDecision(retry_in={"seconds": min(wait, BACKOFF_SECONDS_MAX)})


class Worker:
    """Runs one domain's jobs."""

    def __init__(self, url: str, jobs: Sequence[Job], *, application_name: str) -> None:
        self._jobs = jobs
        self._url = url
        self._session = {
            "options": f"-c search_path={SEARCH_PATH} -c TimeZone=UTC -c statement_timeout=5000",
            "application_name": f"{application_name}-jobs",
            "connect_timeout": 5,
        }
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # what it says is said below, in our own words

    async def run(self) -> None:
        """Run jobs until cancelled; an absent database is waited for."""
        while True:
            connector = procrastinate.PsycopgConnector(
                conninfo=self._url, kwargs=self._session, min_size=1, max_size=2, timeout=5
            )
            app = procrastinate.App(connector=connector)
            for job in self._jobs:
                self._register(app, job)
            try:
                async with app.open_async(), asyncio.TaskGroup() as group:
                    group.create_task(self._revive(app))
                    group.create_task(self._work(app))
            except* (ProcrastinateException, OperationalError, WorkerEnded) as errors:
                _log.warning("jobs.interrupted", error=type(errors.exceptions[0]).__name__)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _work(self, app: procrastinate.App) -> None:
        """Run the worker. Raises WorkerEnded where it ends by itself: it does so, without an error, when its heartbeat meets a
        database that is just away, and the next one must take its place."""
        for job in self._jobs:
            if job.at_start:
                await app.configure_task(job.name).defer_async()
        await app.run_worker_async(
            concurrency=PARALLEL,
            listen_notify=False,
            fetch_job_polling_interval=POLL_SECONDS,
            install_signal_handlers=False,
            delete_jobs="successful",
            shutdown_graceful_timeout=STOP_SECONDS,
            update_heartbeat_interval=HEARTBEAT_SECONDS,
            stalled_worker_timeout=STALLED_SECONDS,
        )
        raise WorkerEnded

    def _register(self, app: procrastinate.App, job: Job) -> None:
        retry = _Plan(job.tries)

        async def work(context: procrastinate.JobContext, /, *, traceparent: str = "", **arguments: Any) -> None:
            await _attempt(job, context, traceparent, arguments)

        async def tick(context: procrastinate.JobContext, timestamp: int = 0, traceparent: str = "") -> None:
            await _attempt(job, context, traceparent, {})

        if job.cron:
            app.periodic(cron=job.cron)(app.task(name=job.name, pass_context=True, retry=retry)(tick))
        else:
            app.task(name=job.name, pass_context=True, retry=retry)(work)

    async def _revive(self, app: procrastinate.App) -> None:
        """Put the jobs of workers that died back in line, until cancelled. Two processes may do so: one of them finds it done."""
        while True:
            await asyncio.sleep(STALLED_SECONDS / 2)
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS):
                with contextlib.suppress(ProcrastinateException):
                    await app.job_manager.retry_job(job)
                    _log.warning("job.revived", job=job.task_name, job_id=job.id)


async def _attempt(job: Job, context: procrastinate.JobContext, traceparent: str, arguments: dict[str, Any]) -> None:
    try:
        with _tracer.start_as_current_span(job.name, context=propagate.extract({"traceparent": traceparent})):
            await job.run(**arguments)
    except Exception as error:
        tried = context.job.attempts + 1
        last = tried >= job.tries
        _ended.labels(job.name, "failed" if last else "retried").inc()
        say = _log.error if last else _log.warning
        say("job.failed", job=job.name, job_id=context.job.id, tried=tried, error=type(error).__name__)
        if last and job.give_up is not None:
            await _give_up(job, arguments, error)
        raise
    _ended.labels(job.name, "done").inc()


async def _give_up(job: Job, arguments: dict[str, Any], error: Exception) -> None:
    assert job.give_up is not None
    try:
        await job.give_up(**arguments, error=f"{type(error).__name__}: {error}"[:ERROR_LENGTH_MAX])
    except Exception as failure:
        _log.error("job.not_given_up", job=job.name, error=type(failure).__name__)
        raise NotGivenUp from failure
