"""What the use cases work with."""

from __future__ import annotations

from dataclasses import dataclass

from servers.identity.passwords import Passwords
from servers.identity.tokens import Secrets, Signer
from servers.kernel.clock import Clock
from servers.runtime.db import Database
from servers.runtime.throttle import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the use cases work with."""

    db: Database
    clock: Clock
    passwords: Passwords
    signer: Signer
    secrets: Secrets
    throttle: Throttle
    livemode: bool
