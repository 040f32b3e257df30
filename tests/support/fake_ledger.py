"""The ledger in memory, behind payments' port to it: facts carry their ids, so that a repeat changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from servers.kernel.clock import Clock
from servers.kernel.money import Money
from servers.payments.domain import Attempt, Capture, Payment, Refund
from servers.payments.peers import Booked, LedgerPeer, Wallet
from servers.runtime.channels import PeerUnavailable
from tests.support.weather import Forecast, Weather

KINDS = (Weather.DROPPED, Weather.STRAY, Weather.LOST, Weather.LATE, Weather.DIED, Weather.DIED_BEFORE)


def failure(weather: Weather) -> Exception:
    """Return what a call without an answer raises."""
    return PeerUnavailable("wallets")


@dataclass
class Hold:
    """Money held in the wallet for an attempt."""

    payment_id: str
    left: int
    ends: datetime
    is_over: bool = False


@dataclass
class FakeLedger(LedgerPeer):
    """One wallet, its holds, and what was taken from it. `forecast` says how calls go."""

    clock: Clock
    owner: Wallet
    balance: int = 0
    forecast: Forecast = field(default_factory=Forecast)
    holds: dict[str, Hold] = field(default_factory=dict)
    taken: dict[str, tuple[str, Money, Money]] = field(default_factory=dict)
    """Capture id -> (payment id, amount, fee)."""
    given_back: dict[str, Money] = field(default_factory=dict)
    """Refund id -> amount."""
    burnt: set[str] = field(default_factory=set)
    verdict_of_refunds: str = ""
    """What it says to refunds; "" where it books them."""
    is_short: bool = False
    """Whether the merchant's balance covers no refund."""

    def captured(self, payment_id: str) -> int:
        """Return what was taken for a payment."""
        return sum(amount.amount_minor for whose, amount, _ in self.taken.values() if whose == payment_id)

    def held(self, payment_id: str) -> int:
        """Return what is held for a payment: a hold whose time is over holds nothing."""
        now, mine = self.clock.now(), [hold for hold in self.holds.values() if hold.payment_id == payment_id]
        return sum(hold.left for hold in mine if now < hold.ends)

    async def wallet(self, wallet_id: str) -> Wallet | None:
        """Return the wallet."""
        return self.owner if wallet_id == self.owner.id else None

    async def hold(self, payment: Payment, attempt: Attempt, expire_time: datetime) -> Booked:
        """Hold money."""
        return await self.forecast.over(lambda: self._hold(payment, attempt, expire_time), failure, KINDS)

    def _hold(self, payment: Payment, attempt: Attempt, expire_time: datetime) -> Booked:
        if attempt.id in self.holds:
            return Booked(verdict="EXISTS")
        if expire_time <= self.clock.now():
            return Booked(verdict="PENDING_EXPIRED")
        if attempt.id in self.burnt:
            return Booked(verdict="BURNT")
        if self.balance < payment.amount.amount_minor:
            self.burnt.add(attempt.id)
            return Booked(verdict="INSUFFICIENT_FUNDS")
        self.balance -= payment.amount.amount_minor
        self.holds[attempt.id] = Hold(payment.id, payment.amount.amount_minor, expire_time)
        return Booked(verdict="CREATED")

    async def capture_held(self, payment: Payment, attempt: Attempt, capture: Capture, expire_time: datetime) -> Booked:
        """Take money that is held, or hold and take it."""

        def act() -> Booked:
            if capture.id in self.taken:
                return Booked(verdict="EXISTS", fee=self.taken[capture.id][2])
            if attempt.id not in self.holds and not (made := self._hold(payment, attempt, expire_time)).done:
                return made
            hold = self.holds[attempt.id]
            if hold.is_over or hold.ends <= self.clock.now():
                return Booked(verdict="PENDING_CLOSED")
            if capture.amount.amount_minor > hold.left:
                return Booked(verdict="EXCEEDS_PENDING")
            hold.left -= capture.amount.amount_minor
            hold.is_over = not hold.left
            self.taken[capture.id] = (payment.id, capture.amount, capture.fee)
            return Booked(verdict="CREATED", fee=capture.fee)

        return await self.forecast.over(act, failure, KINDS)

    async def void(self, payment: Payment, attempt: Attempt, time: datetime) -> Booked:
        """Let the rest go."""

        def act() -> Booked:
            hold = self.holds.get(attempt.id)
            if hold is None:
                self.burnt.add(attempt.id)
                return Booked(verdict="CREATED")
            self.balance += hold.left
            hold.left, hold.is_over = 0, True
            return Booked(verdict="CREATED")

        return await self.forecast.over(act, failure, KINDS)

    async def reserve_refund(self, payment: Payment, refund: Refund, *, within_balance: bool = False) -> Booked:
        """Book a refund; to a wallet the money goes at once."""

        def act() -> Booked:
            if self.verdict_of_refunds or refund.id in self.given_back:
                return Booked(verdict=self.verdict_of_refunds or "EXISTS")
            if within_balance and self.is_short:
                return Booked(verdict="INSUFFICIENT_FUNDS")
            self.given_back[refund.id] = refund.amount
            self.balance += refund.amount.amount_minor if payment.wallet_id else 0
            return Booked(verdict="CREATED")

        return await self.forecast.over(act, failure, KINDS)
