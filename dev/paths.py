"""Where the local stack keeps its things, and which ports it uses. Every port is a setting (`PAYMESH_PORT_*`)."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
PREFIX: Final = "PAYMESH_PORT_"
DOMAINS: Final = ("identity", "payments", "wallets", "notifications")
# Handed to the servers as they are.
PASSED_ON: Final = ("PAYMESH_LOG_LEVEL", "PAYMESH_OTLP_ENDPOINT")
# PAYMESH_AUDIT_URLS and PAYMESH_OPERATOR_* are the command line's; whoever exported them may still start a stack.
KNOWN: Final = {
    *("PAYMESH_DATA_DIR", "PAYMESH_AUDIT_URLS", "PAYMESH_EDGE_LIMITS", "PAYMESH_RECONCILE_EVERY_SECONDS", *PASSED_ON),
    *("PAYMESH_OPERATOR_TLS_DIR", "PAYMESH_OPERATOR_PEERS"),
}


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
    notifications: int = 9006
    envoy_admin: int = 9901
    postgres: int = 5433
    redis: int = 6380
    stripe_sandbox: int = 9100
    metrics_identity: int = 9201
    metrics_payments: int = 9202
    metrics_wallets: int = 9203
    metrics_notifications: int = 9206
    mail_smtp: int = 1026
    mail_inbox: int = 8026

    @classmethod
    def load(cls) -> Self:
        """Read `PAYMESH_PORT_*`. Raises StackRefused for a name or number that cannot be, or a port that two parts want."""
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        values = {}
        for name, value in os.environ.items():
            if not name.startswith("PAYMESH_"):
                continue
            if name not in known and name not in KNOWN:
                raise StackRefused(f"{name}: no such setting. The stack reads {', '.join(sorted({*known, *KNOWN}))}.")
            if name in known:
                if not (value.isascii() and value.isdigit()) or not 0 < int(value) < 65536:
                    raise StackRefused(f"{name}={value}: must be a port number, 1 to 65535")
                values[known[name]] = int(value)
        ports = cls(**values)
        owners: dict[int, str] = {}
        for field in fields(cls):
            port = getattr(ports, field.name)
            if port in owners:
                one, other = (PREFIX + name.upper() for name in (owners[port], field.name))
                raise StackRefused(f"{one} and {other} are both {port}: each part needs a port of its own")
            owners[port] = field.name
        return ports


def data_dir() -> Path:
    """Return the folder of this stack: `.paymesh` in the repository, or `PAYMESH_DATA_DIR`."""
    return Path(os.environ.get("PAYMESH_DATA_DIR") or ROOT / ".paymesh").resolve()
