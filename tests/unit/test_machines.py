"""Every state machine, exhaustively: each (state, trigger) either follows its arrow or is refused, in Python and in SQL."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from dev.paths import ROOT
from servers.identity.domain import MACHINES as IDENTITY
from servers.kernel.transitions import IllegalTransition, Machine
from servers.notifications.domain import MACHINES as NOTIFICATIONS
from servers.payments.domain import MACHINES as PAYMENTS
from servers.wallets.resources import MACHINES as WALLETS

MACHINES = [
    *(("identity", machine) for machine in IDENTITY),
    *(("payments", machine) for machine in PAYMENTS),
    *(("wallets", machine) for machine in WALLETS),
    *(("notifications", machine) for machine in NOTIFICATIONS),
]
NAMES = [machine.name for _, machine in MACHINES]


def migrated_arrows(domain: str) -> dict[str, Any]:
    """Return what the domain's migrations install; a later one wins."""
    arrows: dict[str, Any] = {}
    for file in sorted(Path(ROOT, "servers", domain, "migrations", "versions").glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        arrows.update(getattr(module, "STATE_ARROWS", {}))
    return arrows


@pytest.mark.parametrize(("domain", "machine"), MACHINES, ids=NAMES)
def test_each_state_takes_its_arrows_and_refuses_every_other_trigger(domain: str, machine: Machine[Any]) -> None:
    triggers = {arrow.trigger for arrow in machine.arrows}
    listed = {(arrow.source, arrow.trigger): arrow.target for arrow in machine.arrows}
    for state in (None, *machine.states):
        for trigger in triggers:
            if (state, trigger) in listed:
                assert machine.arrow(state, trigger, "id").target is listed[state, trigger]
            else:
                with pytest.raises(IllegalTransition) as refused:
                    machine.arrow(state, trigger, "id")
                assert "id" in refused.value.metadata.values()


@pytest.mark.parametrize(("domain", "machine"), MACHINES, ids=NAMES)
def test_the_sql_trigger_allows_the_same_arrows(domain: str, machine: Machine[Any]) -> None:
    assert set(migrated_arrows(domain)[machine.name]) == set(machine.pairs())


@pytest.mark.parametrize(("domain", "machine"), MACHINES, ids=NAMES)
def test_every_state_can_be_reached_and_only_terminal_ones_are_ends(domain: str, machine: Machine[Any]) -> None:
    targets = {arrow.target for arrow in machine.arrows}
    sources = {arrow.source for arrow in machine.arrows}
    assert targets == set(machine.states)
    for state in machine.states:
        # Left by people, or not at all yet.
        if state.name not in ("CONFLICTED", "NEEDS_OPERATOR", "ATTACHED") and machine.name != "wallet":
            assert (state in machine.terminal) == (state not in sources)


@pytest.mark.parametrize(("domain", "machine"), MACHINES, ids=NAMES)
def test_the_diagram_in_the_docs_is_the_table(domain: str, machine: Machine[Any]) -> None:
    assert machine.mermaid() in Path(ROOT, "docs", "state-machines.md").read_text()
