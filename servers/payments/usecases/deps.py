"""What the use cases work with."""

from __future__ import annotations

from dataclasses import dataclass

from servers.kernel.clock import Clock
from servers.payments.events import Events
from servers.payments.fees import FeePlans
from servers.payments.gateway_stripe import StripeGateway
from servers.payments.outcomes import Outcomes
from servers.payments.peers import LedgerPeer
from servers.payments.return_urls import ReturnUrls
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
    ledger: LedgerPeer
    ledger_outbound: Outbound
    events: Events
    fee_plans: FeePlans
    outcomes: Outcomes
    saving: Saving
    return_urls: ReturnUrls
    throttle: Throttle
