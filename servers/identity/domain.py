"""Users, sessions, merchants, API keys: records, states, roles and scopes, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import ClassVar, Final

from servers.kernel.errors import Kind, Refusal
from servers.kernel.transitions import Arrow, IllegalTransition, Machine

ACCESS_SECONDS: Final = 900
SESSION_KEEP: Final = timedelta(days=30)
INVITATION_KEEP: Final = timedelta(days=14)
OWNER: Final = "owner"


class SessionState(Enum):
    """The states of a session."""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


class ApiKeyState(Enum):
    """The states of an API key."""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


class ApiKeyKind(Enum):
    """Whom an API key is for: a merchant's servers, or its shoppers' browsers and apps."""

    SECRET = "SECRET"  # noqa: S105  # a name, not a secret
    PUBLISHABLE = "PUBLISHABLE"

    def prefix(self, *, livemode: bool) -> str:
        """Return how such a key begins."""
        return f"pm_{'sk' if self is ApiKeyKind.SECRET else 'pk'}_{'live' if livemode else 'test'}_"


class MemberState(Enum):
    """The states of a member."""

    ACTIVE = "ACTIVE"
    REMOVED = "REMOVED"


class InvitationState(Enum):
    """The states of an invitation."""

    OPEN = "OPEN"
    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"


class StaffState(Enum):
    """The states of a staff member."""

    ACTIVE = "ACTIVE"
    REMOVED = "REMOVED"


class TokenPurpose(Enum):
    """What a token in a mail is good for, and for how long."""

    VERIFY_EMAIL = "VERIFY_EMAIL"
    RESET_PASSWORD = "RESET_PASSWORD"  # noqa: S105  # a name, not a secret

    @property
    def keep(self) -> timedelta:
        """For how long a token works."""
        return timedelta(days=3) if self is TokenPurpose.VERIFY_EMAIL else timedelta(hours=1)


class SessionStateInvalid(IllegalTransition):
    """The session has ended."""

    reason: ClassVar[str] = "SESSION_STATE_INVALID"


class ApiKeyStateInvalid(IllegalTransition):
    """The API key has ended."""

    reason: ClassVar[str] = "API_KEY_STATE_INVALID"


class InvitationStateInvalid(IllegalTransition):
    """The invitation is not open any more."""

    reason: ClassVar[str] = "INVITATION_STATE_INVALID"


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
    refusal=ApiKeyStateInvalid,
    arrows=(
        Arrow(None, "create", ApiKeyState.ACTIVE, "api_key.created"),
        Arrow(ApiKeyState.ACTIVE, "revoke", ApiKeyState.REVOKED, "api_key.revoked", "revoke"),
    ),
)
MEMBER: Final = Machine(
    name="member",
    states=MemberState,
    terminal=frozenset(),
    refusal=SessionStateInvalid,
    arrows=(
        Arrow(None, "join", MemberState.ACTIVE, "member.joined"),
        Arrow(MemberState.ACTIVE, "change_role", MemberState.ACTIVE, "member.role_changed", "update"),
        Arrow(MemberState.ACTIVE, "remove", MemberState.REMOVED, "member.removed", "remove"),
        Arrow(MemberState.REMOVED, "join", MemberState.ACTIVE, "member.joined"),
    ),
)
_I = InvitationState
INVITATION: Final = Machine(
    name="invitation",
    states=InvitationState,
    terminal=frozenset({_I.ACCEPTED, _I.DECLINED, _I.REVOKED, _I.EXPIRED}),
    refusal=InvitationStateInvalid,
    arrows=(
        Arrow(None, "create", _I.OPEN, "invitation.created"),
        Arrow(_I.OPEN, "accept", _I.ACCEPTED, "invitation.accepted", "accept"),
        Arrow(_I.OPEN, "decline", _I.DECLINED, "invitation.declined", "decline"),
        Arrow(_I.OPEN, "revoke", _I.REVOKED, "invitation.revoked", "revoke"),
        Arrow(_I.OPEN, "expire", _I.EXPIRED, "invitation.expired"),
    ),
)
STAFF: Final = Machine(
    name="staff",
    states=StaffState,
    terminal=frozenset(),
    refusal=SessionStateInvalid,
    arrows=(
        Arrow(None, "set_role", StaffState.ACTIVE, "staff.role_set"),
        Arrow(StaffState.ACTIVE, "set_role", StaffState.ACTIVE, "staff.role_set"),
        Arrow(StaffState.ACTIVE, "remove", StaffState.REMOVED, "staff.removed"),
        Arrow(StaffState.REMOVED, "set_role", StaffState.ACTIVE, "staff.role_set"),
    ),
)
MACHINES: Final = (SESSION, API_KEY, MEMBER, INVITATION, STAFF)

CUSTOMER_SCOPES: Final = frozenset(
    {
        "users:read",
        "users:write",
        "sessions:read",
        "sessions:write",
        "emails:read",
        "merchants:read",
        "merchants:write",
        "payment_methods:read",
        "payment_methods:write",
        "payments:read",
        "payments:confirm",
        "refunds:read",
        "setup_intents:read",
        "setup_intents:write",
        "setup_intents:confirm",
        "mandates:read",
        "mandates:write",
        "wallets:read",
        "wallets:write",
    }
)
_PAYMENTS_READ: Final = frozenset(
    {"payments:read", "refunds:read", "disputes:read", "setup_intents:read", "mandates:read", "payment_methods:read"}
)
_SELL: Final = frozenset({"payments:write", "payments:confirm", "setup_intents:write"})
_GIVE_BACK: Final = frozenset({"refunds:write", "disputes:write"})
_SETTINGS: Final = frozenset({"payment_settings:read", "payment_settings:write"})
_OTHERS: Final = frozenset({"merchants:read", "balances:read", "payments:review", "fee_plans:read"})
API_KEY_SCOPES: Final = _PAYMENTS_READ | _SELL | _SETTINGS | _GIVE_BACK | _OTHERS
"""What a secret API key may carry."""
PUBLISHABLE_KEY_SCOPES: Final = ("payments:confirm", "payments:read", "setup_intents:confirm", "setup_intents:read")
"""What every publishable API key carries."""
_MEMBER: Final = frozenset({"users:read", "users:write", "sessions:read", "sessions:write", "merchants:read"})
_READ: Final = _MEMBER | _PAYMENTS_READ | {"balances:read", "payment_settings:read", "fee_plans:read"}
_MANAGE: Final = frozenset({"merchants:write", "members:read", "members:write", "audit_log:read"})
_KEYS: Final = frozenset({"api_keys:read", "api_keys:write"})
_ALL: Final = _READ | _MANAGE | _SELL | _SETTINGS | _KEYS | _GIVE_BACK | {"payments:review"}
ROLE_SCOPES: Final = {
    "owner": _ALL,
    "admin": _ALL,
    "finance": _READ | _GIVE_BACK | {"payments:review"},
    "support": _MEMBER | _PAYMENTS_READ,
    "developer": _READ | _KEYS | _SETTINGS,
    "viewer": _READ,
}
_STAFF_READ: Final = frozenset({"payments:read", "refunds:read", "fee_plans:read"})
_STAFF_DECIDE: Final = frozenset(
    {"payments:resolve", "refunds:resolve", "reconciliation:read", "reconciliation:write", "fee_plans:write"}
)
STAFF_ROLE_SCOPES: Final = {
    "operator": _STAFF_READ | _STAFF_DECIDE,
    "finance": _STAFF_READ | _STAFF_DECIDE,
    "risk": _STAFF_READ,
    "support": _STAFF_READ,
}


class LoginFailed(Refusal):
    """The email and the password do not match an account."""

    kind = Kind.UNAUTHENTICATED
    reason = "LOGIN_FAILED"

    def __init__(self) -> None:
        super().__init__("The email address and the password do not match an account.")


class StaffCodeInvalid(Refusal):
    """The code of the authenticator app is wrong or used, or the user is no staff: the two look the same."""

    kind = Kind.UNAUTHENTICATED
    reason = "STAFF_CODE_INVALID"

    def __init__(self) -> None:
        super().__init__("The code does not work: wait for the next one that your app shows.")


class RefreshTokenInvalid(Refusal):
    """The refresh token is unknown, expired or used."""

    kind = Kind.UNAUTHENTICATED
    reason = "REFRESH_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("The refresh token does not work any more; log in again.")


class EmailTokenInvalid(Refusal):
    """The token of a mail does not work, or not any more."""

    kind = Kind.UNAUTHENTICATED
    reason = "EMAIL_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("This link or token does not work any more; ask for a new mail.")


class EmailNotVerified(Refusal):
    """The user has not shown that the address is theirs."""

    kind = Kind.PRECONDITION
    reason = "EMAIL_NOT_VERIFIED"

    def __init__(self) -> None:
        super().__init__("Verify your email address first, with the link in the mail you got.")


class MemberRoleInvalid(Refusal):
    """The change would break a rule about owners."""

    kind = Kind.PRECONDITION
    reason = "MEMBER_ROLE_INVALID"

    def __init__(self, rule: str) -> None:
        super().__init__(rule, metadata={"rule": rule})

    @classmethod
    def last_owner(cls) -> MemberRoleInvalid:
        """Return the refusal to leave a merchant without an owner."""
        return cls("A merchant keeps at least one owner: make somebody else an owner first.")

    @classmethod
    def only_owners(cls) -> MemberRoleInvalid:
        """Return the refusal of a change of owners by somebody who is none."""
        return cls("Only an owner makes or unmakes owners.")


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
    email_verified: bool
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
    last_used_time: datetime
    user_agent: str
    address: str


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
class Member:
    """A user who may act for a merchant."""

    merchant_id: str
    user_id: str
    email: str
    display_name: str
    role: str
    state: MemberState
    version: int
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An offer of a role to whoever has an address."""

    id: str
    merchant_id: str
    merchant_display_name: str
    email: str
    role: str
    state: InvitationState
    invited_by: str
    expire_time: datetime
    version: int
    create_time: datetime
    update_time: datetime

    def seen_at(self, now: datetime) -> InvitationState:
        """Return the state as it is to be shown: past its end it has expired, whether or not the sweep was here."""
        over = self.state is InvitationState.OPEN and self.expire_time <= now
        return InvitationState.EXPIRED if over else self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLogEntry:
    """Something that a member did for a merchant."""

    id: str
    merchant_id: str
    actor_id: str
    actor_role: str
    action: str
    resource_id: str
    details: Mapping[str, str]
    request_id: str
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A credential of a merchant. `publishable_key` is the key itself, "" for a secret one."""

    id: str
    merchant_id: str
    kind: ApiKeyKind
    publishable_key: str
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
class StaffMember:
    """A user who works for the platform."""

    id: str
    user_id: str
    email: str
    role: str
    state: StaffState
    sealed_secret: bytes
    last_step: int
    """The step of the last code that was used: no code of it or before works."""
    version: int
    create_time: datetime
    update_time: datetime

    @property
    def secret_place(self) -> str:
        """What the sealed secret is bound to."""
        return f"staff.sealed_secret|{self.user_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a login, refresh or switch answers."""

    access_token: str
    refresh_token: str
    user: User
    merchant_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key with the secret that is shown once; a publishable key has none."""

    key: ApiKey
    secret: str
