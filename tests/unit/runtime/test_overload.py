"""A server that is given more than it can finish in time turns the rest away at once, and finishes what it has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import pytest
from google.rpc import status_pb2
from paymesh.wallets.v1 import ledger_pb2

from servers.runtime.db import Database
from servers.runtime.interceptor import CALLS_MAX, SPIFFE, Interceptor
from servers.runtime.policy import FOREIGN, policies_of
from tests.unit.runtime.test_grpc_errors import details_of

LEDGER = ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"]
POLICIES = {**policies_of([LEDGER]), **FOREIGN}
OURS = next(policy for policy in POLICIES.values() if policy.method not in FOREIGN)
HEALTH = FOREIGN["/grpc.health.v1.Health/Check"]


class Aborted(Exception):
    """What gRPC raises to end a call."""


class Context:
    """What a call of a peer looks like to a server."""

    def __init__(self) -> None:
        self.status = status_pb2.Status()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def time_remaining(self) -> float:
        return 5.0

    def peer_identity_key(self) -> str:
        return "x509_subject_alternative_name"

    def peer_identities(self) -> list[bytes]:
        return [f"{SPIFFE}{next(iter(OURS.callers))}".encode()]

    async def abort(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, bytes], ...]) -> None:
        self.status = status_pb2.Status.FromString(metadata[0][1])
        raise Aborted(code.name)


def served(interceptor: Interceptor, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Any:
    """Put the interceptor around a method; returns what gRPC would call."""
    service, name = method.lstrip("/").split("/")
    interceptor.add_registered_method_handlers(service, {name: grpc.unary_unary_rpc_method_handler(behaviour)})
    details = cast(grpc.HandlerCallDetails, type("Details", (), {"method": method}))
    return interceptor.service(details).unary_unary


async def test_one_call_too_many_is_turned_away_and_the_others_are_finished() -> None:
    interceptor = Interceptor(POLICIES, cast(Database, None))
    go = asyncio.Event()

    async def wait(request: object, context: object) -> str:
        await go.wait()
        return "finished"

    async def at_once(request: object, context: object) -> str:
        return "well"

    serve = served(interceptor, OURS.method, wait)
    waiting = [asyncio.create_task(serve(object(), Context())) for _ in range(CALLS_MAX)]
    await asyncio.sleep(0)
    refused = Context()
    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        await serve(object(), refused)
    info, retry = details_of(refused.status)
    assert info.reason == "OVERLOADED"
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
    assert await served(interceptor, HEALTH.method, at_once)(object(), Context()) == "well"
    go.set()
    assert await asyncio.gather(*waiting) == ["finished"] * CALLS_MAX
    assert await serve(object(), Context()) == "finished"  # there is room again
