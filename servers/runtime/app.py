"""A server: what every domain's `main.py` declares is run here.

Roles (serve, relay, consume, janitor, domain tasks) are asyncio tasks of one process. On SIGTERM the server turns unhealthy,
takes no new calls, lets running ones end, and stops its tasks.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servers.kernel.clock import Clock, SystemClock
from servers.runtime import crashpoints, logs, telemetry
from servers.runtime.channels import Channels
from servers.runtime.connection import DatabaseOptions, engine_for
from servers.runtime.consumer import Consumer
from servers.runtime.db import Database
from servers.runtime.eventlog import EventLog
from servers.runtime.eventlog_postgres import PostgresEventLog
from servers.runtime.interceptor import CALLS_MAX, Interceptor
from servers.runtime.janitor import Janitor
from servers.runtime.jobs import Job, Worker
from servers.runtime.pagination import Pages
from servers.runtime.policy import FOREIGN, REFLECTION, policies_of
from servers.runtime.relay import Relay
from servers.runtime.sealed import Sealer
from servers.runtime.settings import ServerSettings
from servers.runtime.throttle import Throttle
from servers.runtime.tls import Certificates

DRAIN_SECONDS: Final = 5.0
CANCEL_AGAIN_SECONDS: Final = 4.0  # longer than running jobs are given to end by themselves
MESSAGE_BYTES_MAX: Final = 1 << 20
GARBAGE_THRESHOLDS: Final = (20_000, 20, 20)
KEY_EXPIRY_CRON: Final = "*/10 * * * *"
KEY_EXPIRY_ROUNDS_MAX: Final = 500

_log = structlog.get_logger("server")
S = TypeVar("S", bound=ServerSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Generic[S]):
    """What a domain builds its parts from."""

    settings: S
    db: Database
    log: EventLog
    clock: Clock
    channels: Channels
    pages: Pages
    throttle: Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A servicer with how it is added to a server. `descriptor` is None for a service that is not ours."""

    servicer: Any
    add: Callable[[Any, Any], None]
    descriptor: ServiceDescriptor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a domain consists of."""

    services: Sequence[Service]
    consumers: Sequence[Consumer] = ()
    janitor: Janitor | None = None
    jobs: Sequence[Job] = ()
    tasks: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    """Functions that run until cancelled."""
    closing: Sequence[Callable[[], Awaitable[None]]] = ()
    """What gives back what the parts opened, when no call runs any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Generic[S]):
    """One domain's server."""

    domain: str
    settings: type[S]
    build: Callable[[Context[S]], Awaitable[Parts]]

    def main(self) -> None:
        """Run until SIGTERM or Ctrl-C."""
        import uvloop

        settings = self.settings.load()
        logs.configure(service=self.domain, level=settings.log_level)
        uvloop.run(self._run(settings))

    async def _run(self, settings: S) -> None:
        crashpoints.arm(settings.crash_dir)
        telemetry.configure(
            service=self.domain,
            otlp_endpoint=settings.otlp_endpoint,
            metrics_host=settings.grpc_host,
            metrics_port=settings.metrics_port,
        )
        clock = SystemClock()
        sealer = Sealer(settings.seal_key.get_secret_value())
        options = DatabaseOptions(application_name=f"paymesh-{self.domain}", pool_size=10)
        db = Database(
            engine_for(settings.database_url.get_secret_value(), options),
            domain=self.domain,
            clock=clock,
            sealer=sealer,
        )
        log_options = DatabaseOptions(application_name=f"paymesh-{self.domain}-log", pool_size=2)
        log = PostgresEventLog(engine_for(settings.eventlog_url.get_secret_value(), log_options))
        certificates = Certificates(settings.tls_dir)
        channels = Channels(certificates, settings.peers)
        pages = Pages(Sealer(settings.page_token_key.get_secret_value()), clock)
        throttle = Throttle(settings.redis_url.get_secret_value(), clock)
        context = Context(
            settings=settings, db=db, log=log, clock=clock, channels=channels, pages=pages, throttle=throttle
        )
        await db.announce()
        parts = await self.build(context)
        try:
            await self._serve(settings, context, parts, certificates)
        finally:
            for close in parts.closing:
                await close()
            await channels.close()
            await throttle.close()
            await log.close()
            await db.dispose()

    async def _serve(self, settings: S, context: Context[S], parts: Parts, certificates: Certificates) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        server, interceptor, health_servicer = _grpc_server(settings, context.db, parts)
        server.add_secure_port(f"{settings.grpc_host}:{settings.grpc_port}", certificates.server_credentials())
        tasks = _tasks(context, parts)
        running: list[asyncio.Task[Any]] = [asyncio.create_task(task()) for task in tasks]
        await server.start()
        for service in (*_names(parts), ""):
            await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        _settle_garbage()
        _log.info("server.started", domain=self.domain, port=settings.grpc_port)
        stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        await health_servicer.enter_graceful_shutdown()
        await server.stop(DRAIN_SECONDS)
        await interceptor.drain()
        await _cancel(running)
        _log.info("server.stopped", domain=self.domain)
        for task in done - {stopping}:
            task.result()  # a role that ended by itself has failed: the process fails with it, and is restarted


def _settle_garbage() -> None:
    """Collect again, leave what the start made out of every later collection, and collect less often.

    Calls make few cycles, but many objects: with the default thresholds a tenth of a busy server's time went into looking at
    them, and a full collection over all imported modules stopped every call for some 50 ms (measured).
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    gc.enable()


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel until every task has ended: where the cancellation meets a rollback, an error of the database may take its place, and
    a loop that bears such errors would go on."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)


def _grpc_server(settings: ServerSettings, db: Database, parts: Parts) -> tuple[grpc.aio.Server, Interceptor, Any]:
    policies = {**policies_of(s.descriptor for s in parts.services if s.descriptor is not None), **FOREIGN}
    reflect = settings.profile != "production"
    if reflect:
        policies.update(REFLECTION)
    interceptor = Interceptor(policies, db)
    server = grpc.aio.server(
        # The interceptor turns calls away long before, and says when to ask again: what gRPC says has no reason, or is CANCELLED.
        maximum_concurrent_rpcs=10 * CALLS_MAX,
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_connection_age_ms", int(timedelta(minutes=30).total_seconds() * 1000)),
            ("grpc.max_connection_age_grace_ms", 60_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", 0),
        ],
    )
    for service in parts.services:
        service.add(service.servicer, interceptor)
    servicer = health.aio.HealthServicer()
    front: Any = interceptor  # it takes services as a server does, which other people's stubs do not know
    health_pb2_grpc.add_HealthServicer_to_server(servicer, front)
    if reflect:
        from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

        names = (*_names(parts), health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, front)  # type: ignore[no-untyped-call]
    server.add_generic_rpc_handlers((interceptor,))
    return server, interceptor, servicer


def _names(parts: Parts) -> tuple[str, ...]:
    return tuple(s.descriptor.full_name for s in parts.services if s.descriptor is not None)


def _tasks(context: Context[S], parts: Parts) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    tasks: list[Callable[[], Coroutine[Any, Any, None]]] = [
        Relay(context.db, context.log).run,
        context.db.keep_announced,
    ]
    tasks += [consumer.run for consumer in parts.consumers]
    if parts.janitor is not None:
        tasks.append(parts.janitor.run)
    tasks.append(_worker(context, parts).run)
    tasks += parts.tasks
    return tasks


def _worker(context: Context[S], parts: Parts) -> Worker:
    async def expire_keys() -> None:
        expired = 0
        for _ in range(KEY_EXPIRY_ROUNDS_MAX):
            async with context.db.uow() as uow:
                now = await uow.idempotency.expire()
            expired += now
            if not now:
                break
        if expired:
            _log.info("idempotency_keys.expired", count=expired)

    domain, url = context.db.domain, context.settings.database_url.get_secret_value()
    house = Job(name=f"{domain}.expire_idempotency_keys", run=expire_keys, cron=KEY_EXPIRY_CRON)
    return Worker(url, [house, *parts.jobs], application_name=f"paymesh-{domain}")
