"""What the use cases work with."""

from __future__ import annotations

from dataclasses import dataclass

from servers.kernel.clock import Clock
from servers.runtime.db import Database
from servers.runtime.outbound import Outbound
from servers.wallets.outcomes import Outcomes
from servers.wallets.peers import Charging


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the use cases work with."""

    db: Database
    clock: Clock
    payments: Charging
    outbound: Outbound
    outcomes: Outcomes
