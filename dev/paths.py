"""Where the local stack keeps its things, and which ports it uses. Every port is a setting (`PAYMESH_PORT_*`)."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
PREFIX: Final = "PAYMESH_PORT_"
DOMAINS: Final = ("identity", "payments", "wallets")
KNOWN: Final = {"PAYMESH_DATA_DIR", "PAYMESH_CRASH_DIR"}


class StackRefused(Exception):
    """The stack cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of docs/architecture.md; the field name in upper case is the setting's."""

    edge: int = 8443
    edge_http: int = 8080
    identity: int = 9001
    payments: int = 9002
    wallets: int = 9003
    envoy_admin: int = 9901
    postgres: int = 5433
    stripe_sandbox: int = 9100
    metrics_identity: int = 9201
    metrics_payments: int = 9202
    metrics_wallets: int = 9203

    @classmethod
    def load(cls) -> Self:
        """Read `PAYMESH_PORT_*`. Raises StackRefused for a name or number that cannot be."""
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        values = {}
        for name, value in os.environ.items():
            if not name.startswith("PAYMESH_"):
                continue
            if name not in known and name not in KNOWN:
                raise StackRefused(f"{name}: no such setting. The stack reads {', '.join(sorted({*known, *KNOWN}))}.")
            if name in known:
                if not value.isdigit() or not 0 < int(value) < 65536:
                    raise StackRefused(f"{name}={value}: must be a port number, 1 to 65535")
                values[known[name]] = int(value)
        return cls(**values)


def data_dir() -> Path:
    """Return the folder of this stack: `.paymesh` in the repository, or `PAYMESH_DATA_DIR`."""
    return Path(os.environ.get("PAYMESH_DATA_DIR", ROOT / ".paymesh")).resolve()
