"""Wallets and top-ups: states, arrows and records, pure. What is in a wallet is an account of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import ClassVar, Final

from servers.kernel.money import Money
from servers.kernel.transitions import Arrow, IllegalTransition, Machine
from servers.wallets.domain import Account, AccountKind, account_id


class WalletState(Enum):
    """The states of a wallet."""

    ACTIVE = "ACTIVE"


class TopUpState(Enum):
    """The states of a top-up; the names are those of the contract."""

    PENDING = "PENDING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class WalletStateInvalid(IllegalTransition):
    """The wallet's state does not allow the verb."""

    reason: ClassVar[str] = "WALLET_STATE_INVALID"


class TopUpStateInvalid(IllegalTransition):
    """The top-up's state does not allow the verb."""

    reason: ClassVar[str] = "TOP_UP_STATE_INVALID"


WALLET: Final = Machine(
    name="wallet",
    states=WalletState,
    terminal=frozenset(),
    refusal=WalletStateInvalid,
    arrows=(Arrow(None, "create", WalletState.ACTIVE, "wallet.created"),),
)

_T = TopUpState

TOP_UP: Final = Machine(
    name="top_up",
    states=TopUpState,
    terminal=frozenset({_T.SUCCEEDED, _T.FAILED}),
    refusal=TopUpStateInvalid,
    arrows=(
        Arrow(None, "create", _T.PENDING, "top_up.created"),
        # What is known of it has changed, and not its state: the payment's id, the certainty, the next step.
        Arrow(_T.PENDING, "note", _T.PENDING, "top_up.updated"),
        Arrow(_T.PENDING, "require_action", _T.REQUIRES_ACTION, "top_up.requires_action"),
        Arrow(_T.PENDING, "succeed", _T.SUCCEEDED, "top_up.succeeded"),
        Arrow(_T.PENDING, "fail", _T.FAILED, "top_up.failed"),
        Arrow(_T.REQUIRES_ACTION, "note", _T.REQUIRES_ACTION, "top_up.updated"),
        Arrow(_T.REQUIRES_ACTION, "return", _T.PENDING, "top_up.updated"),
        Arrow(_T.REQUIRES_ACTION, "succeed", _T.SUCCEEDED, "top_up.succeeded"),
        Arrow(_T.REQUIRES_ACTION, "fail", _T.FAILED, "top_up.failed"),
    ),
)
MACHINES: Final = (WALLET, TOP_UP)
OPEN: Final = frozenset(_T) - TOP_UP.terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A user's wallet in one currency, without what is in it."""

    id: str
    owner_id: str
    currency: str
    state: WalletState
    version: int
    create_time: datetime
    update_time: datetime

    @property
    def account_id(self) -> str:
        """The account that holds its money."""
        return account_id(self.owner_id, AccountKind.CUSTOMER_WALLET, self.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What is in a wallet, and what is on its way in."""

    account: Account
    pending_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAction:
    """What the cardholder must do."""

    type: str
    redirect_url: str = ""
    stripe_client_secret: str = ""
    stripe_publishable_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline:
    """Why a card was declined, in payments' words."""

    code: str
    recommended_action: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """Money on its way from a card into a wallet."""

    id: str
    owner_id: str
    wallet_id: str
    amount: Money
    payment_method_id: str
    return_url: str
    state: TopUpState
    uncertain: bool
    payment_id: str
    payment_version: int
    """The newest version of the payment that was applied: what is older is no news."""
    next_action: NextAction | None
    decline: Decline | None
    failure_reason: str
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """The capture of a top-up's payment: the card was charged."""

    capture_id: str
    amount: Money
    capture_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """How the payment of a top-up stands, and what that means for the top-up."""

    top_up_id: str
    owner_id: str
    payment_id: str
    payment_version: int
    state: TopUpState
    uncertain: bool = False
    charged: Charged | None = None
    """Set in SUCCEEDED."""
    next_action: NextAction | None = None
    """Set in REQUIRES_ACTION."""
    decline: Decline | None = None
    failure_reason: str = ""
    """Set in FAILED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One arrow that a top-up takes, and what changes with it."""

    trigger: str
    changes: dict[str, object]


_TRIGGERS: Final = {
    (_T.PENDING, _T.REQUIRES_ACTION): "require_action",
    (_T.PENDING, _T.SUCCEEDED): "succeed",
    (_T.PENDING, _T.FAILED): "fail",
    (_T.REQUIRES_ACTION, _T.PENDING): "return",
    (_T.REQUIRES_ACTION, _T.SUCCEEDED): "succeed",
    (_T.REQUIRES_ACTION, _T.FAILED): "fail",
}


def step_of(top_up: TopUp, news: News, *, asked: bool) -> Step | None:
    """Return what news of the payment does to a top-up, None where it is no news.

    An answer to a question of ours is as new as anything can be; an event may be older than what is known, or a repeat of it. Only
    an answer is noted where the state stays: a payment's way to its card is full of steps that are nothing to whoever tops up.
    """
    if top_up.state in TOP_UP.terminal or news.payment_version < top_up.payment_version:
        return None
    if not asked and news.payment_version == top_up.payment_version:
        return None
    changes: dict[str, object] = {
        "payment_id": news.payment_id,
        "uncertain": news.uncertain,
        "next_action": _known_action(top_up, news),
        "decline": news.decline,
        "failure_reason": news.failure_reason,
    }
    if news.state is not top_up.state:
        return Step(trigger=_TRIGGERS[top_up.state, news.state], changes=changes)
    differs = any(getattr(top_up, name) != value for name, value in changes.items())
    return Step(trigger="note", changes=changes) if asked and differs else None


def _known_action(top_up: TopUp, news: News) -> NextAction | None:
    """Events tell no secrets: the one that an answer told is kept."""
    told, known = news.next_action, top_up.next_action
    if told is not None and known is not None and not told.stripe_client_secret and known.type == told.type:
        return known
    return told
