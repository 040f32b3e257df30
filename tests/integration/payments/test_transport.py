"""Calls to Stripe that go wrong on their way: what is certain about each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import stripe

from servers.payments.gateway_stripe import StripeGateway, classify, transport
from servers.runtime.outbound import Failure

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """What stands where Stripe should."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, and do what was asked for."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head.split("\r\n", 1)[0])
        await self._answer(writer)
        writer.close()


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[tuple[Peer, int]]:
    """Listen while the block runs."""
    peer = Peer(answer)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    async with server:
        yield peer, server.sockets[0].getsockname()[1]


async def asked(port: int) -> Exception:
    """Ask for a customer to be made, and return what is raised."""
    gateway = StripeGateway("sk_test_x", api_base=f"http://127.0.0.1:{port}", webhook_secrets=[], public_url="")
    try:
        with pytest.raises(Exception) as caught:  # which one is what each test asks
            await gateway.create_customer("usr_1", key="key_1")
    finally:
        await gateway.close()
    return caught.value


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Read, and say nothing."""


async def stop_halfway(writer: asyncio.StreamWriter) -> None:
    """Begin an answer and hang up."""
    writer.write(HEAD + b'{"id": "cus')
    await writer.drain()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send an answer so slowly that no single read waits for long."""
    writer.write(HEAD)
    for _ in range(100):
        writer.write(b" ")
        await asyncio.sleep(0.05)


async def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    async with listening(hang_up) as (_, port):
        pass
    error = await asked(port)
    assert isinstance(error, stripe.APIConnectionError)
    assert classify(error) == (Failure.NOT_SENT, None)


async def test_a_name_that_nobody_knows_proves_it_too() -> None:
    gateway = StripeGateway("sk_test_x", api_base="http://stripe.invalid", webhook_secrets=[], public_url="")
    with pytest.raises(stripe.APIConnectionError) as caught:
        await gateway.create_customer("usr_1", key="key_1")
    await gateway.close()
    assert classify(caught.value) == (Failure.NOT_SENT, None)


@pytest.mark.parametrize("answer", [hang_up, stop_halfway, drip])
async def test_an_answer_that_does_not_come_whole_leaves_the_outcome_unknown(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT_SECONDS", 0.5)
    async with listening(answer) as (peer, port):
        assert classify(await asked(port)) == (Failure.UNKNOWN, None)
    assert peer.requests == ["POST /v1/customers HTTP/1.1"]


async def test_a_redirect_is_not_followed() -> None:
    async with listening(hang_up) as (elsewhere, other):

        async def redirect(writer: asyncio.StreamWriter) -> None:
            writer.write(
                f"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{other}/\r\n"
                "content-length: 0\r\n\r\n".encode()
            )
            await writer.drain()

        async with listening(redirect) as (_, port):
            error = await asked(port)
    assert isinstance(error.__cause__, transport.Redirected)
    assert classify(error) == (Failure.UNKNOWN, None)
    assert elsewhere.requests == []


async def test_the_environments_proxy_is_asked_unless_the_host_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(hang_up) as (proxy, port):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        gateway = StripeGateway("sk_test_x", api_base="http://stripe.invalid", webhook_secrets=[], public_url="")
        with pytest.raises(stripe.APIConnectionError):
            await gateway.create_customer("usr_1", key="key_1")
        await gateway.close()
        assert proxy.requests == ["POST http://stripe.invalid/v1/customers HTTP/1.1"]
        async with listening(hang_up) as (direct, other):
            await asked(other)
        assert direct.requests == ["POST /v1/customers HTTP/1.1"]
        assert len(proxy.requests) == 1
