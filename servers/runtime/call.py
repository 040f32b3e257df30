"""What a handler knows about the call it serves: who asks, for whom, under which key."""

from __future__ import annotations

import base64
import binascii
import json
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from servers.kernel.errors import Kind, Refusal
from servers.kernel.invariant import invariant
from servers.runtime.idempotency import IdempotentRequest


class PrincipalKind(Enum):
    """The kinds of caller; the values are those of the `typ` claim."""

    PUBLIC = "public"
    CUSTOMER = "customer"
    MEMBER = "member"
    API_KEY = "api_key"
    STAFF = "staff"
    SERVICE = "service"
    PAYMENT_CLIENT = "payment_client"


class CredentialInvalid(Refusal):
    """No credential, or one that does not hold."""

    kind = Kind.UNAUTHENTICATED
    reason = "CREDENTIAL_INVALID"

    def __init__(self) -> None:
        super().__init__("A valid access token or API key is needed.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. `merchant_id` is set for members, API keys and payment clients; nothing of it comes from the request's body.

    A payment client is whoever holds a key that anybody may see: it proves the merchant and nothing else, so what it may touch
    is decided by the object's `client_secret`.
    """

    kind: PrincipalKind
    subject: str
    merchant_id: str = ""
    role: str = ""
    session_id: str = ""
    scopes: frozenset[str] = frozenset()

    @property
    def tenant(self) -> str:
        """Whose data the call may touch."""
        return self.merchant_id or self.subject


_OF_A_MERCHANT: Final = frozenset({PrincipalKind.MEMBER, PrincipalKind.API_KEY, PrincipalKind.PAYMENT_CLIENT})
ANONYMOUS = Principal(kind=PrincipalKind.PUBLIC, subject="")


def decode_principal(header: str) -> Principal:
    """Read the claims that the edge forwards after it verified them. Raises CredentialInvalid."""
    try:
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        kind = PrincipalKind(claims["typ"])
        principal = Principal(
            kind=kind,
            subject=str(claims["sub"]),
            merchant_id=str(claims.get("merchant_id", "")),
            role=str(claims.get("role", "")),
            session_id=str(claims.get("sid", "")),
            scopes=frozenset(str(claims.get("scope", "")).split()),
        )
    except (binascii.Error, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise CredentialInvalid from error
    if not principal.subject or kind in (PrincipalKind.PUBLIC, PrincipalKind.SERVICE):
        raise CredentialInvalid
    if kind in _OF_A_MERCHANT and not principal.merchant_id:
        raise CredentialInvalid
    return principal


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, while it is served."""

    method: str
    peer: str
    principal: Principal
    request_id: str
    idempotency_key: str
    key_required: bool
    metadata: dict[str, str]
    claims: list[IdempotentRequest] = field(default_factory=list)
    """The keys that the call works under, so that a failure can give them back."""

    @property
    def client_address(self) -> str:
        """The network address that the edge saw, or "": whatever the client itself claims stands before it."""
        return self.metadata.get("x-forwarded-for", "").rpartition(",")[2].strip()[:64]

    @property
    def user_agent(self) -> str:
        """What the client calls itself, printable and short."""
        given = self.metadata.get("user-agent", "")[:200]
        return "".join(character if character.isprintable() else "?" for character in given)


_current: ContextVar[Call] = ContextVar("paymesh_call")


def current_call() -> Call:
    """Return the call that is being served."""
    call = _current.get(None)
    invariant(call is not None, "no call is being served")
    assert call is not None
    return call


def call_in_progress() -> Call | None:
    """Return the call that is being served, None outside of calls."""
    return _current.get(None)


def set_current_call(call: Call) -> None:
    """Make `call` the one being served, for this task and those it starts."""
    _current.set(call)
