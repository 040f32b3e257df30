"""Users, sessions, merchants, API keys: records, states, roles and scopes, pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import ClassVar, Final

from servers.kernel.errors import Kind, Refusal
from servers.kernel.transitions import Arrow, IllegalTransition, Machine

ACCESS_SECONDS: Final = 900
SESSION_KEEP: Final = timedelta(days=30)


class SessionState(Enum):
    """The states of a session."""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


class ApiKeyState(Enum):
    """The states of an API key."""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


class SessionStateInvalid(IllegalTransition):
    """The session has ended."""

    reason: ClassVar[str] = "SESSION_STATE_INVALID"


SESSION: Final = Machine(
    name="session",
    states=SessionState,
    terminal=frozenset({SessionState.REVOKED}),
    refusal=SessionStateInvalid,
    arrows=(
        Arrow(None, "create", SessionState.ACTIVE, "session.created"),
        Arrow(SessionState.ACTIVE, "revoke", SessionState.REVOKED, "session.revoked", "revoke"),
    ),
)
API_KEY: Final = Machine(
    name="api_key",
    states=ApiKeyState,
    terminal=frozenset({ApiKeyState.REVOKED}),
    refusal=SessionStateInvalid,
    arrows=(
        Arrow(None, "create", ApiKeyState.ACTIVE, "api_key.created"),
        Arrow(ApiKeyState.ACTIVE, "revoke", ApiKeyState.REVOKED, "api_key.revoked", "revoke"),
    ),
)
MACHINES: Final = (SESSION, API_KEY)

CUSTOMER_SCOPES: Final = frozenset(
    {
        "users:read",
        "sessions:write",
        "merchants:read",
        "merchants:write",
        "payment_methods:read",
        "payment_methods:write",
        "payments:read",
        "payments:confirm",
        "refunds:read",
    }
)
API_KEY_SCOPES: Final = frozenset(
    {"merchants:read", "payments:read", "payments:write", "refunds:read", "refunds:write", "balances:read"}
)
"""What an API key may carry."""
_MEMBER: Final = frozenset({"users:read", "sessions:write", "merchants:read"})
_READ: Final = _MEMBER | {"payments:read", "refunds:read", "balances:read"}
_ALL: Final = _READ | {"payments:write", "refunds:write", "api_keys:read", "api_keys:write"}
ROLE_SCOPES: Final = {
    "owner": _ALL,
    "admin": _ALL,
    "finance": _READ | {"refunds:write"},
    "support": _MEMBER | {"payments:read", "refunds:read"},
    "developer": _READ | {"api_keys:read", "api_keys:write"},
    "viewer": _READ,
}


class LoginFailed(Refusal):
    """The email and the password do not match an account."""

    kind = Kind.UNAUTHENTICATED
    reason = "LOGIN_FAILED"

    def __init__(self) -> None:
        super().__init__("The email address and the password do not match an account.")


class RefreshTokenInvalid(Refusal):
    """The refresh token is unknown, expired or used."""

    kind = Kind.UNAUTHENTICATED
    reason = "REFRESH_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("The refresh token does not work any more; log in again.")


class ReferenceTaken(Refusal):
    """The unique reference is taken."""

    kind = Kind.EXISTS
    reason = "REFERENCE_TAKEN"

    def __init__(self, field: str) -> None:
        super().__init__(f"This {field} is taken.", metadata={"field": field})


class LoginsBusy(Refusal):
    """Too many passwords are being checked."""

    kind = Kind.EXHAUSTED
    reason = "RATE_LIMITED"

    def __init__(self) -> None:
        super().__init__("Too many logins at once; try again in a moment.", retry_after_seconds=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who can log in."""

    id: str
    email: str
    display_name: str
    password_hash: bytes
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One login on one device."""

    id: str
    user_id: str
    state: SessionState
    version: int
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """A business that takes payments; `role` is the asking member's."""

    id: str
    display_name: str
    country: str
    default_currency: str
    role: str
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A credential of a merchant's server."""

    id: str
    merchant_id: str
    display_name: str
    scopes: tuple[str, ...]
    secret_prefix: str
    expire_time: datetime | None
    last_used_time: datetime | None
    state: ApiKeyState
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a login, refresh or switch answers."""

    access_token: str
    refresh_token: str
    user: User
    merchant_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key with the secret that is shown once."""

    key: ApiKey
    secret: str
