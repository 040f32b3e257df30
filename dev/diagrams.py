"""Writes docs/state-machines.md from the transition tables, and docs/declines.md; unit tests notice when a page is behind."""

from __future__ import annotations

from typing import Any, Final

from dev import declines
from dev.paths import ROOT
from servers.identity.domain import MACHINES as IDENTITY
from servers.kernel.transitions import Machine
from servers.notifications.domain import MACHINES as NOTIFICATIONS
from servers.payments.domain import MACHINES as PAYMENTS
from servers.wallets.resources import MACHINES as WALLETS

PAGE: Final = ROOT / "docs" / "state-machines.md"
HEAD: Final = """# State machines

Made by `make proto` from the tables in each domain's `domain.py`, which also give the server's guard, the SQL trigger, the
exhaustive tests and `available_actions`. Do not edit this page.
"""


def section(domain: str, machine: Machine[Any]) -> str:
    """Return one machine as a diagram and a list of its events."""
    events = sorted({arrow.event for arrow in machine.arrows if arrow.event})
    told = f"Events: {', '.join(f'`{event}`' for event in events)}." if events else "Told by its payment's events."
    return f"\n## {machine.name} ({domain})\n\n```mermaid\n{machine.mermaid()}\n```\n\n{told}\n"


def main() -> None:
    """Write the page."""
    tables: tuple[tuple[str, tuple[Machine[Any], ...]], ...] = (
        ("identity", IDENTITY),
        ("payments", PAYMENTS),
        ("wallets", WALLETS),
        ("notifications", NOTIFICATIONS),
    )
    sections = [section(domain, machine) for domain, machines in tables for machine in machines]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(HEAD + "".join(sections))
    declines.main()


if __name__ == "__main__":
    main()
