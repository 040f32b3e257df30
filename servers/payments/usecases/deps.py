"""What the use cases work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from servers.kernel.clock import Clock
from servers.payments.disputing import Disputing
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.gateway_stripe import StripeGateway
from servers.payments.outcomes import Outcomes
from servers.payments.peers import LedgerPeer
from servers.payments.return_urls import ReturnUrls
from servers.payments.risk import Screening, Thresholds
from servers.payments.saving import Saving
from servers.runtime.db import Database
from servers.runtime.outbound import Outbound
from servers.runtime.throttle import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the use cases work with."""

    db: Database
    clock: Clock
    gateway: StripeGateway
    outbound: Outbound
    balance_outbound: Outbound
    """For reading Stripe's own books: a breaker of its own, so that a slow list stops no payment."""
    ledger: LedgerPeer
    ledger_outbound: Outbound
    events: Events
    fee_plans: FeePlans
    outcomes: Outcomes
    disputing: Disputing
    saving: Saving
    return_urls: ReturnUrls
    throttle: Throttle
    screening: Screening = field(default_factory=lambda: Screening(Thresholds({}), closed=True))
    """Says which payments a person looks at first."""
    review_timeout: timedelta = timedelta(days=1)
    """How long a payment waits for that person."""
    refunds_wait: bool = False
    """Whether no refund takes a merchant below zero, whatever the merchant's own settings say."""
