"""Channels to other servers: mTLS, deadlines, retry policy as data, round robin.

Retries happen only on UNAVAILABLE and only because every call made here is a read or carries its own ids (AIP-194).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import grpc
from google.rpc import status_pb2
from opentelemetry import propagate

from servers.kernel.errors import Kind, Refusal
from servers.runtime.grpc_errors import STATUS_DETAILS, refusal_of
from servers.runtime.tls import Certificates

CLOSE_AFTER_SECONDS: Final = 30.0
SERVICE_CONFIG: Final = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "timeout": "8s",
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
    }
)

Stub = TypeVar("Stub")


class PeerUnavailable(Refusal):
    """A server behind this one did not answer."""

    kind = Kind.UNAVAILABLE
    reason = "PEER_UNAVAILABLE"

    def __init__(self, peer: str) -> None:
        super().__init__(
            "A server behind this one did not answer; ask again with the same key.",
            metadata={"peer": peer},
            retry_after_seconds=1.0,
        )


class Channels:
    """One channel per peer, replaced when the certificate is renewed: a channel never reloads its own."""

    def __init__(self, certificates: Certificates, peers: Mapping[str, str]) -> None:
        self._certificates = certificates
        self._peers = peers
        self._open: dict[str, tuple[tuple[int, ...], grpc.aio.Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def stub(self, peer: str, make: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """Return a stub to `peer` on its present channel."""
        stamp = self._certificates.current().stamp
        known = self._open.get(peer)
        if known is None or known[0] != stamp:
            if known is not None:
                task = asyncio.create_task(_close_later(known[1]))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            known = (stamp, self._dial(peer))
            self._open[peer] = known
        return make(known[1])

    def _dial(self, peer: str) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            self._peers[peer],
            self._certificates.channel_credentials(),
            options=[
                ("grpc.ssl_target_name_override", f"{peer}.paymesh.internal"),
                ("grpc.service_config", SERVICE_CONFIG),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2_000),
            ],
        )

    async def close(self) -> None:
        """Close every channel."""
        for _, channel in self._open.values():
            await channel.close()


def outgoing_metadata() -> tuple[tuple[str, str], ...]:
    """Return the trace of the present span, for the call that it makes."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())


def peer_refusal(peer: str, error: grpc.aio.AioRpcError) -> Refusal | None:
    """Return the refusal for a peer that did not answer, or None where it did."""
    away: tuple[Any, ...] = (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
    return PeerUnavailable(peer) if error.code() in away else None


def peer_answer(error: grpc.aio.AioRpcError) -> Refusal | None:
    """Return what a peer refused, to be raised on as it is: its reason, its field violations, its metadata, its advice when to try
    again. None where the call failed without an answer of the peer's own."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return refusal_of(status_pb2.Status.FromString(value))
    return None


async def _close_later(channel: grpc.aio.Channel) -> None:
    await asyncio.sleep(CLOSE_AFTER_SECONDS)
    await channel.close()
