"""The clients: one for threads, one for asyncio, with the same face inside and outside of the mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message
from paymesh.identity.v1.identity_pb2_grpc import IdentityServiceStub
from paymesh.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from paymesh.payments.v1.payments_pb2_grpc import PaymentServiceStub
from paymesh.wallets.v1.proofs_pb2_grpc import ProofServiceStub
from paymesh.wallets.v1.wallets_pb2_grpc import WalletServiceStub

from paymesh_client.calls import AsyncCall, Call, Metadata, Wire
from paymesh_client.retries import Retries

if TYPE_CHECKING:
    from paymesh.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub
    from paymesh.notifications.v1.notifications_pb2_grpc import NotificationServiceAsyncStub
    from paymesh.payments.v1.payments_pb2_grpc import PaymentServiceAsyncStub
    from paymesh.wallets.v1.proofs_pb2_grpc import ProofServiceAsyncStub
    from paymesh.wallets.v1.wallets_pb2_grpc import WalletServiceAsyncStub

Q = TypeVar("Q", bound=Message)
Stub = TypeVar("Stub")
OPTIONS: Final = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Retries are ours: they keep the request id, which the channel's own would not make.
    ("grpc.enable_retries", 0),
]


def _credentials(ca_file: str | Path | None, key_file: Path | None = None, cert_file: Path | None = None) -> Any:
    files = [Path(file).read_bytes() if file is not None else None for file in (ca_file, key_file, cert_file)]
    return grpc.ssl_channel_credentials(*files)


def _options(name: str) -> list[tuple[str, Any]]:
    return [*OPTIONS, ("grpc.ssl_target_name_override", name)] if name else list(OPTIONS)


def _bearer(credential: str) -> Metadata:
    return (("authorization", f"Bearer {credential}"),) if credential else ()


class Paymesh:
    """The platform, for synchronous code. Each attribute is a generated stub; its calls raise PaymeshError."""

    def __init__(self, channel: Any, metadata: Metadata, retries: Retries) -> None:
        self._channel = channel
        self._wire = cast(grpc.Channel, Wire(channel, Call, metadata, retries))
        self.identity = IdentityServiceStub(self._wire)
        self.payments = PaymentServiceStub(self._wire)
        self.wallets = WalletServiceStub(self._wire)
        self.proofs = ProofServiceStub(self._wire)
        self.notifications = NotificationServiceStub(self._wire)

    @classmethod
    def outside(
        cls, address: str, *, credential: str = "", ca_file: str | Path | None = None, retries: Retries | None = None
    ) -> Self:
        """Connect to the edge (`host:port`) with an access token or API key. `ca_file`: where the edge's certificate is not
        vouched for by a public authority."""
        channel = grpc.secure_channel(address, _credentials(ca_file), options=_options(""))
        return cls(channel, _bearer(credential), retries or Retries())

    @classmethod
    def inside(cls, address: str, *, domain: str, tls_dir: Path, retries: Retries | None = None) -> Self:
        """Connect to one server of the mesh over mTLS, with the certificate in a folder (ca.crt, tls.key, tls.crt)."""
        credentials = _credentials(tls_dir / "ca.crt", tls_dir / "tls.key", tls_dir / "tls.crt")
        channel = grpc.secure_channel(address, credentials, options=_options(f"{domain}.paymesh.internal"))
        return cls(channel, (), retries or Retries())

    def stub(self, make: Callable[[grpc.Channel], Stub]) -> Stub:
        """Return the stub of a further service, for example the ledger's inside of the mesh."""
        return make(self._wire)

    def pages(self, method: Callable[[Q], Any], request: Q) -> Iterator[Any]:
        """Yield every resource of a list, page by page as they are needed."""
        asked = type(request)()
        asked.CopyFrom(request)
        while True:
            answer = method(asked)
            yield from _items(answer)
            if not answer.next_page_token:
                return
            asked.page_token = answer.next_page_token  # type: ignore[attr-defined]  # every list request has it

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Return the client; the connection closes with the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncPaymesh:
    """The platform, for asyncio. Each attribute is a generated stub; its calls are awaited and raise PaymeshError."""

    identity: IdentityServiceAsyncStub
    payments: PaymentServiceAsyncStub
    wallets: WalletServiceAsyncStub
    proofs: ProofServiceAsyncStub
    notifications: NotificationServiceAsyncStub

    def __init__(self, channel: Any, metadata: Metadata, retries: Retries) -> None:
        self._channel = channel
        wire = cast(grpc.aio.Channel, Wire(channel, AsyncCall, metadata, retries))
        self._wire = wire
        self.identity = IdentityServiceStub(wire)
        self.payments = PaymentServiceStub(wire)
        self.wallets = WalletServiceStub(wire)
        self.proofs = ProofServiceStub(wire)
        self.notifications = NotificationServiceStub(wire)

    @classmethod
    def outside(
        cls, address: str, *, credential: str = "", ca_file: str | Path | None = None, retries: Retries | None = None
    ) -> Self:
        """Connect to the edge, as `Paymesh.outside` does."""
        channel = grpc.aio.secure_channel(address, _credentials(ca_file), options=_options(""))
        return cls(channel, _bearer(credential), retries or Retries())

    @classmethod
    def inside(cls, address: str, *, domain: str, tls_dir: Path, retries: Retries | None = None) -> Self:
        """Connect to one server of the mesh, as `Paymesh.inside` does."""
        credentials = _credentials(tls_dir / "ca.crt", tls_dir / "tls.key", tls_dir / "tls.crt")
        channel = grpc.aio.secure_channel(address, credentials, options=_options(f"{domain}.paymesh.internal"))
        return cls(channel, (), retries or Retries())

    def stub(self, make: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """Return the stub of a further service."""
        return make(self._wire)

    async def pages(self, method: Callable[[Q], Any], request: Q) -> AsyncIterator[Any]:
        """Yield every resource of a list, page by page as they are needed."""
        asked = type(request)()
        asked.CopyFrom(request)
        while True:
            answer = await method(asked)
            for item in _items(answer):
                yield item
            if not answer.next_page_token:
                return
            asked.page_token = answer.next_page_token  # type: ignore[attr-defined]  # every list request has it

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Return the client; the connection closes with the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _items(answer: Any) -> Any:
    """Return the resources of a list's answer: its one repeated field."""
    field = next(field for field in answer.DESCRIPTOR.fields if field.is_repeated)
    return getattr(answer, field.name)
