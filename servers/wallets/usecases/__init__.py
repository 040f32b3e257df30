"""One function per command. Each owns its transactions; none is open while payments is called or the ledger writes."""

from __future__ import annotations

from servers.wallets.usecases.deps import Deps
from servers.wallets.usecases.top_ups import (
    CHARGE,
    CreateTopUp,
    create_top_up,
    drive_top_up,
    hear_of_payment,
    refresh_top_up,
)
from servers.wallets.usecases.wallets import create_wallet

__all__ = [
    "CHARGE",
    "CreateTopUp",
    "Deps",
    "create_top_up",
    "create_wallet",
    "drive_top_up",
    "hear_of_payment",
    "refresh_top_up",
]
