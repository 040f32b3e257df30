"""What stands between a generated stub and the wire. A stub asks its channel for callables: these are ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from paymesh_client.errors import REQUEST_ID_KEY, PaymeshError, error_of
from paymesh_client.retries import Retries, with_request_id

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Metadata = tuple[tuple[str, str], ...]


def _request_id(metadata: Any) -> str:
    return next((str(value) for key, value in metadata or () if key == REQUEST_ID_KEY), "")


class Call(Generic[Q, A]):
    """One method, called synchronously."""

    def __init__(self, send: Any, metadata: Metadata, retries: Retries) -> None:
        self._send = send
        self._metadata = metadata
        self._retries = retries

    def __call__(self, request: Q, timeout: float | None = None, metadata: Metadata = ()) -> A:
        """Call. Raises PaymeshError."""
        request = with_request_id(request)
        deadline = time.monotonic() + (timeout or self._retries.timeout_seconds)
        attempt = 1
        while True:
            try:
                answer: A = self._send(
                    request, timeout=deadline - time.monotonic(), metadata=(*self._metadata, *metadata)
                )
            except grpc.RpcError as failure:
                error = _error(failure)
                wait = self._retries.wait_before(attempt, error, request)
                if wait is None or time.monotonic() + wait >= deadline:
                    raise error from failure
                time.sleep(wait)
                attempt += 1
            else:
                return answer


class AsyncCall(Generic[Q, A]):
    """One method, called from asyncio."""

    def __init__(self, send: Any, metadata: Metadata, retries: Retries) -> None:
        self._send = send
        self._metadata = metadata
        self._retries = retries

    async def __call__(self, request: Q, timeout: float | None = None, metadata: Metadata = ()) -> A:
        """Call. Raises PaymeshError."""
        request = with_request_id(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout or self._retries.timeout_seconds)
        attempt = 1
        while True:
            try:
                answer: A = await self._send(
                    request, timeout=deadline - loop.time(), metadata=(*self._metadata, *metadata)
                )
            except grpc.aio.AioRpcError as failure:
                error = _error(failure)
                wait = self._retries.wait_before(attempt, error, request)
                if wait is None or loop.time() + wait >= deadline:
                    raise error from failure
                await asyncio.sleep(wait)
                attempt += 1
            else:
                return answer


def _error(failure: Any) -> PaymeshError:
    return error_of(
        failure.code(),
        failure.details() or "",
        failure.trailing_metadata() or (),
        _request_id(failure.initial_metadata()) or _request_id(failure.trailing_metadata()),
    )


class Wire:
    """A channel as the generated stubs see it: it makes our calls. For unary methods, which all public ones are."""

    def __init__(
        self, channel: Any, make: Callable[[Any, Metadata, Retries], Any], metadata: Metadata, retries: Retries
    ) -> None:
        self._channel = channel
        self._make = make
        self._metadata = metadata
        self._retries = retries

    def unary_unary(self, method: str, **serializers: Any) -> Any:
        """Return a callable for a method."""
        return self._make(self._channel.unary_unary(method, **serializers), self._metadata, self._retries)

    def __getattr__(self, name: str) -> Any:
        """Return the channel's own way for streaming methods."""
        return getattr(self._channel, name)
