"""The ledger's rules, pure: accounts, transfers, holds, chains.

A transfer is one debit and one credit of one amount, so an unbalanced one cannot be written down. `Sheet` applies transfers to
working copies of the accounts that the writer has locked; nothing here knows SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from servers.kernel.ids import bucket_of, derive_id

PLATFORM: Final = "platform"
PLATFORM_BUCKET: Final = 0


class AccountKind(Enum):
    """The chart of accounts, as far as it is used."""

    PROCESSOR_CLEARING = "PROCESSOR_CLEARING"
    PLATFORM_FEES = "PLATFORM_FEES"
    REFUNDS_IN_TRANSIT = "REFUNDS_IN_TRANSIT"
    SUSPENSE = "SUSPENSE"
    PROCESSOR_FEES = "PROCESSOR_FEES"
    PLATFORM_BANK = "PLATFORM_BANK"
    DISPUTES_WITHDRAWN = "DISPUTES_WITHDRAWN"
    LOSSES = "LOSSES"
    FX = "FX"
    MERCHANT_PENDING = "MERCHANT_PENDING"
    MERCHANT_AVAILABLE = "MERCHANT_AVAILABLE"
    MERCHANT_RESERVE = "MERCHANT_RESERVE"
    MERCHANT_DISPUTED = "MERCHANT_DISPUTED"
    CUSTOMER_WALLET = "CUSTOMER_WALLET"
    CUSTOMER_DISPUTED = "CUSTOMER_DISPUTED"


PLATFORM_KINDS: Final = frozenset(
    {
        AccountKind.PROCESSOR_CLEARING,
        AccountKind.PLATFORM_FEES,
        AccountKind.REFUNDS_IN_TRANSIT,
        AccountKind.SUSPENSE,
        AccountKind.PROCESSOR_FEES,
        AccountKind.PLATFORM_BANK,
        AccountKind.DISPUTES_WITHDRAWN,
        AccountKind.LOSSES,
        AccountKind.FX,
    }
)
"""Accounts without a limit. All others may not go below zero unless the transfer is forced."""


class TransferKind(Enum):
    """What a transfer does."""

    POSTED = "POSTED"
    PENDING = "PENDING"
    POST_PENDING = "POST_PENDING"
    VOID_PENDING = "VOID_PENDING"


class Verdict(Enum):
    """What became of a transfer; the names are those of the contract."""

    CREATED = "CREATED"
    EXISTS = "EXISTS"
    EXISTS_WITH_DIFFERENT_FIELDS = "EXISTS_WITH_DIFFERENT_FIELDS"
    BURNT = "BURNT"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    SAME_ACCOUNT = "SAME_ACCOUNT"
    AMOUNT_INVALID = "AMOUNT_INVALID"
    PENDING_NOT_FOUND = "PENDING_NOT_FOUND"
    PENDING_CLOSED = "PENDING_CLOSED"
    PENDING_EXPIRED = "PENDING_EXPIRED"
    EXCEEDS_PENDING = "EXCEEDS_PENDING"
    LINKED_FAILED = "LINKED_FAILED"
    LINKED_PARTLY_EXISTS = "LINKED_PARTLY_EXISTS"
    LINKED_OPEN = "LINKED_OPEN"
    EXPIRE_TIME_INVALID = "EXPIRE_TIME_INVALID"


BURNING: Final = frozenset({Verdict.INSUFFICIENT_FUNDS})
"""Refusals for a passing reason: the id is burnt, so that a late duplicate cannot succeed after the refusal was told."""
DONE: Final = frozenset({Verdict.CREATED, Verdict.EXISTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A movement of money; `currency` and accounts of POST_PENDING and VOID_PENDING are the pending transfer's."""

    id: str
    debit_account_id: str
    credit_account_id: str
    amount_minor: int
    currency: str
    code: str
    kind: TransferKind
    fact_id: str
    effective_time: datetime
    pending_id: str = ""
    linked: bool = False
    forced: bool = False
    expire_time: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Account:
    """An account with its four sums, minor units. Only a sheet changes it, and only copies of its own."""

    id: str
    owner_id: str
    kind: AccountKind
    currency: str
    debits_posted: int = 0
    credits_posted: int = 0
    debits_pending: int = 0
    credits_pending: int = 0
    version: int = 0

    @property
    def balance(self) -> int:
        """Posted credits minus posted debits."""
        return self.credits_posted - self.debits_posted

    @property
    def available(self) -> int:
        """What may still be debited: the balance without what is held."""
        return self.balance - self.debits_pending

    @property
    def limited(self) -> bool:
        """Whether `available` may not go below zero."""
        return self.kind not in PLATFORM_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What is left of a pending transfer."""

    transfer: Transfer
    remaining_minor: int
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of an account: `amount_minor` is positive for a credit."""

    account_id: str
    version: int
    transfer_id: str
    amount_minor: int
    balance_after: int
    available_after: int
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """The pending money of one capture."""

    capture_id: str
    payment_id: str
    merchant_id: str
    currency: str
    net_minor: int
    returned_minor: int
    """What was returned of the capture's fee: while the lot is open, to its pending money."""
    taken_minor: int
    capture_time: datetime
    due_time: datetime
    """When the settlement delay is over."""
    settled: bool = False
    """Whether what was left went to the available balance."""

    @property
    def left_minor(self) -> int:
        """How much of it is still pending."""
        return 0 if self.settled else self.net_minor + self.returned_minor - self.taken_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One line of an account, with what caused it."""

    version: int
    transfer_id: str
    code: str
    source_id: str
    currency: str
    amount_minor: int
    balance_after_minor: int
    effective_time: datetime
    record_time: datetime


def account_id(owner_id: str, kind: AccountKind, currency: str) -> str:
    """Return the id of an owner's account: the same for everybody who asks."""
    return derive_id("acc", owner_id, kind.value, currency, bucket=owner_bucket(owner_id))


def owner_bucket(owner_id: str) -> int:
    """Return the bucket in which an owner's accounts, and the transfers of their facts, stand."""
    return PLATFORM_BUCKET if owner_id == PLATFORM else bucket_of(owner_id)


def wallet_id(user_id: str, currency: str) -> str:
    """Return the id of a user's wallet: there is one for each currency."""
    return derive_id("wal", user_id, currency, bucket=bucket_of(user_id))


def differing_field(stored: Transfer, asked: Transfer) -> str:
    """Return the first field in which a repeat differs from what was written, or ""."""
    ending = asked.kind in (TransferKind.POST_PENDING, TransferKind.VOID_PENDING)
    names = ["kind", "pending_id", "code", "fact_id", "forced", "expire_time"]
    if not ending:
        names += ["debit_account_id", "credit_account_id", "currency"]
    if asked.kind is not TransferKind.VOID_PENDING:
        names.append("amount_minor")
    return next((name for name in names if getattr(stored, name) != getattr(asked, name)), "")


@dataclass(slots=True)
class Sheet:
    """Working copies of what one batch touches, and what it writes."""

    now: datetime
    accounts: dict[str, Account]
    known: dict[str, Transfer]
    burnt: set[str]
    pendings: dict[str, Pending]
    lots: dict[str, Lot] = field(default_factory=dict)
    settlement_delay: timedelta = timedelta(days=2)
    written: list[Transfer] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    burns: list[str] = field(default_factory=list)
    touched_pendings: set[str] = field(default_factory=set)
    touched_lots: set[str] = field(default_factory=set)
    touched_accounts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Copy the accounts: what the sheet was made from stays as it is."""
        self.accounts = {identifier: replace(account) for identifier, account in self.accounts.items()}

    def post(self, transfers: Sequence[Transfer]) -> list[tuple[Verdict, str]]:
        """Apply transfers in order; each gets a verdict and, where it differs from a stored one, the field's name."""
        verdicts: list[tuple[Verdict, str]] = []
        chain: list[Transfer] = []
        for transfer in transfers:
            chain.append(transfer)
            if not transfer.linked:
                verdicts += self._post_chain(chain)
                chain = []
        return verdicts + [(Verdict.LINKED_OPEN, "")] * len(chain)

    def burn(self, transfer_id: str) -> None:
        """Let an id never work again."""
        if transfer_id not in self.burnt:
            self.burnt.add(transfer_id)
            self.burns.append(transfer_id)

    def _post_chain(self, chain: list[Transfer]) -> list[tuple[Verdict, str]]:
        if len(chain) == 1:
            verdict, name = self._post_one(chain[0])
            if verdict in BURNING:
                self.burn(chain[0].id)
            return [(verdict, name)]
        existing = [t.id in self.known for t in chain]
        if any(existing) and not all(existing):
            return [(Verdict.LINKED_PARTLY_EXISTS, "")] * len(chain)
        before = self._snapshot()
        verdicts: list[tuple[Verdict, str]] = []
        for transfer in chain:
            outcome = self._post_one(transfer)
            if outcome[0] not in DONE:
                self._restore(before)
                if outcome[0] in BURNING:
                    for member in chain:
                        self.burn(member.id)
                rest = [(Verdict.LINKED_FAILED, "")]
                return rest * len(verdicts) + [outcome] + rest * (len(chain) - len(verdicts) - 1)
            verdicts.append(outcome)
        return verdicts

    def _post_one(self, transfer: Transfer) -> tuple[Verdict, str]:
        """The checks stand in their documented order: identity first, then shape, then money."""
        if (stored := self.known.get(transfer.id)) is not None:
            name = differing_field(stored, transfer)
            return (Verdict.EXISTS_WITH_DIFFERENT_FIELDS, name) if name else (Verdict.EXISTS, "")
        if transfer.id in self.burnt:
            return Verdict.BURNT, ""
        if transfer.kind in (TransferKind.POST_PENDING, TransferKind.VOID_PENDING):
            return self._end_pending(transfer), ""
        return self._move(transfer), ""

    def _move(self, transfer: Transfer) -> Verdict:
        if transfer.debit_account_id == transfer.credit_account_id:
            return Verdict.SAME_ACCOUNT
        debit = self.accounts.get(transfer.debit_account_id)
        credit = self.accounts.get(transfer.credit_account_id)
        if debit is None or credit is None:
            return Verdict.ACCOUNT_NOT_FOUND
        if not debit.currency == credit.currency == transfer.currency:
            return Verdict.CURRENCY_MISMATCH
        if transfer.amount_minor <= 0:
            return Verdict.AMOUNT_INVALID
        pending = transfer.kind is TransferKind.PENDING
        expires = transfer.expire_time is not None
        if pending != expires or (transfer.expire_time is not None and transfer.expire_time <= self.now):
            return Verdict.EXPIRE_TIME_INVALID
        if debit.limited and not transfer.forced and debit.available < transfer.amount_minor:
            return Verdict.INSUFFICIENT_FUNDS
        if pending:
            self._hold(debit, credit, transfer.amount_minor)
            self.pendings[transfer.id] = Pending(transfer=transfer, remaining_minor=transfer.amount_minor)
            self.touched_pendings.add(transfer.id)
        else:
            self._enter(transfer, debit, credit)
        self._write(transfer)
        return Verdict.CREATED

    def _end_pending(self, transfer: Transfer) -> Verdict:
        pending = self.pendings.get(transfer.pending_id)
        if pending is None:
            return Verdict.PENDING_NOT_FOUND
        if pending.closed:
            return Verdict.PENDING_CLOSED
        expire_time = pending.transfer.expire_time
        posting = transfer.kind is TransferKind.POST_PENDING
        if posting and expire_time is not None and expire_time <= self.now:
            return Verdict.PENDING_EXPIRED
        if posting and transfer.amount_minor <= 0:
            return Verdict.AMOUNT_INVALID
        if posting and transfer.amount_minor > pending.remaining_minor:
            return Verdict.EXCEEDS_PENDING
        amount = transfer.amount_minor if posting else pending.remaining_minor
        origin = pending.transfer
        debit, credit = self.accounts[origin.debit_account_id], self.accounts[origin.credit_account_id]
        self._hold(debit, credit, -amount)
        full = replace(
            transfer,
            debit_account_id=debit.id,
            credit_account_id=credit.id,
            currency=origin.currency,
            amount_minor=amount,
        )
        if posting:
            self._enter(full, debit, credit)
        left = pending.remaining_minor - amount
        self.pendings[origin.id] = replace(pending, remaining_minor=left, closed=left == 0)
        self.touched_pendings.add(origin.id)
        self._write(full)
        return Verdict.CREATED

    def _hold(self, debit: Account, credit: Account, amount: int) -> None:
        debit.debits_pending += amount
        credit.credits_pending += amount
        self.touched_accounts |= {debit.id, credit.id}

    def _enter(self, transfer: Transfer, debit: Account, credit: Account) -> None:
        amount = transfer.amount_minor
        debit.debits_posted += amount
        credit.credits_posted += amount
        for account, signed in ((debit, -amount), (credit, amount)):
            account.version += 1
            self.touched_accounts.add(account.id)
            self.entries.append(
                Entry(
                    account_id=account.id,
                    version=account.version,
                    transfer_id=transfer.id,
                    amount_minor=signed,
                    balance_after=account.balance,
                    available_after=account.available,
                    forced=transfer.forced or bool(transfer.pending_id),
                )
            )

    def _write(self, transfer: Transfer) -> None:
        self.known[transfer.id] = transfer
        self.written.append(transfer)

    def _snapshot(self) -> Sheet:
        return replace(  # which copies the accounts
            self,
            known=dict(self.known),
            pendings=dict(self.pendings),
            lots=dict(self.lots),
            written=list(self.written),
            entries=list(self.entries),
            touched_pendings=set(self.touched_pendings),
            touched_accounts=set(self.touched_accounts),
        )

    def _restore(self, before: Sheet) -> None:
        self.accounts, self.known, self.pendings = before.accounts, before.known, before.pendings
        self.written, self.entries, self.touched_pendings = before.written, before.entries, before.touched_pendings
        self.touched_accounts = before.touched_accounts
