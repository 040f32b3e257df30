"""The servers that notifications calls: identity, for addresses and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from paymesh.identity.v1 import identity_pb2, identity_pb2_grpc

from servers.notifications.domain import EmailKind
from servers.runtime.channels import Channels, outgoing_metadata, peer_refusal

_PURPOSES: Final = {
    EmailKind.VERIFY_EMAIL: identity_pb2.VERIFY_EMAIL,
    EmailKind.RESET_PASSWORD: identity_pb2.RESET_PASSWORD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Whom a mail is written to."""

    address: str
    name: str


class Directory:
    """Identity's directory. Every call may raise PeerUnavailable, after which it may be repeated."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def user(self, user_id: str) -> Recipient:
        """Return a user's address and name."""
        contact = await self._contact(identity_pb2.GetContactRequest(user_id=user_id))
        return Recipient(address=contact.recipients[0].email, name=contact.recipients[0].display_name)

    async def invited(self, invitation_id: str) -> tuple[Recipient, str]:
        """Return the address of an invitation and the name of the merchant that invites."""
        contact = await self._contact(identity_pb2.GetContactRequest(invitation_id=invitation_id))
        return Recipient(address=contact.recipients[0].email, name=""), contact.merchant_display_name

    async def merchant_name(self, merchant_id: str) -> str:
        """Return the name of a merchant."""
        contact = await self._contact(identity_pb2.GetContactRequest(merchant_id=merchant_id))
        return contact.merchant_display_name

    async def token(self, kind: EmailKind, user_id: str) -> str:
        """Return a fresh token for a mail that needs one, else ""."""
        purpose = _PURPOSES.get(kind)
        if purpose is None:
            return ""
        stub = self._channels.stub("identity", identity_pb2_grpc.IdentityDirectoryServiceStub)
        request = identity_pb2.CreateEmailTokenRequest(user_id=user_id, purpose=purpose)
        try:
            made: identity_pb2.EmailToken = await stub.CreateEmailToken(request, metadata=outgoing_metadata())
        except grpc.aio.AioRpcError as error:
            raise peer_refusal("identity", error) or error from error
        return made.token

    async def _contact(self, request: identity_pb2.GetContactRequest) -> identity_pb2.Contact:
        stub = self._channels.stub("identity", identity_pb2_grpc.IdentityDirectoryServiceStub)
        try:
            found: identity_pb2.Contact = await stub.GetContact(request, metadata=outgoing_metadata())
        except grpc.aio.AioRpcError as error:
            raise peer_refusal("identity", error) or error from error
        return found
