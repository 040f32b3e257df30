"""`paymesh audit` proves the books; `paymesh doctor` says whether the local stack is well; `paymesh tour` buys something on it;
`paymesh webhooks` and `paymesh staff` are for whoever runs the platform."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import typer

from paymesh_cli import staff, webhooks

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(staff.app, name="staff")
SHOWN = 5


class NoStack(Exception):
    """There is no stack to look at."""


def state_of(folder: Path) -> dict[str, object]:
    """Return what a running stack says of itself. Raises NoStack."""
    file = folder / "up.json"
    if not file.exists():
        raise NoStack(f"no stack runs from {folder}: start one with `make up`, or set PAYMESH_AUDIT_URLS")
    state: dict[str, object] = json.loads(file.read_text())
    return state


def audit_urls(folder: Path) -> dict[str, str]:
    """Return where the books are: PAYMESH_AUDIT_URLS (JSON by database), else the local stack."""
    given = os.environ.get("PAYMESH_AUDIT_URLS")
    if given:
        urls: dict[str, str] = json.loads(given)
        return urls
    state = state_of(folder)
    password = Path(str(state["secrets_dir"]), "role_audit").read_text()
    address = state["database_address"]
    return {
        name: f"postgresql://paymesh_audit:{password}@{address}/{name}"
        for name in ("identity", "payments", "wallets", "notifications", "eventlog")
    }


def default_folder() -> Path:
    """Return the stack's folder."""
    return Path(os.environ.get("PAYMESH_DATA_DIR", ".paymesh")).resolve()


@app.command()
def audit() -> None:
    """Prove the books, invariant by invariant; exits with 1 where one does not hold."""
    from servers.audit.prove import prove

    try:
        verdicts = prove(audit_urls(default_folder()))
    except NoStack as refusal:
        print(refusal, file=sys.stderr)
        raise typer.Exit(2) from refusal
    for verdict in verdicts:
        mark = "ok    " if verdict.holds else "BROKEN"
        print(f"{verdict.invariant:<4} {mark} {verdict.looked_at:>8}  {verdict.title}")
        for key, detail in verdict.broken[:SHOWN]:
            print(f"            {key}: {detail}")
        if len(verdict.broken) > SHOWN:
            print(f"            and {len(verdict.broken) - SHOWN} more")
    broken = sum(not verdict.holds for verdict in verdicts)
    print(f"audit: {len(verdicts) - broken} of {len(verdicts)} checks hold" + (f", {broken} BROKEN" if broken else ""))
    raise typer.Exit(1 if broken else 0)


@app.command()
def doctor() -> None:
    """Say which parts of the local stack run, and where its logs are."""
    folder = default_folder()
    try:
        state = state_of(folder)
    except NoStack as refusal:
        print(refusal, file=sys.stderr)
        raise typer.Exit(2) from refusal
    pids = state["pids"]
    gone = []
    if isinstance(pids, dict):
        for name, pid in pids.items():
            alive = Path(f"/proc/{pid}").exists()
            print(f"{name:<16} pid {pid:<8} {'runs' if alive else 'was restarted or is gone'}")
            gone += [] if alive else [name]
    print(f"edge {state['edge_url']}, logs {folder / 'logs'}")
    raise typer.Exit(1 if gone else 0)


@app.command()
def tour() -> None:
    """Make one purchase on the local stack, each call shown as lines that work as they are pasted."""
    import asyncio

    from dev.tour import TourFailed
    from dev.tour import tour as purchase

    try:
        state = state_of(default_folder())
        asyncio.run(purchase(str(state["edge_url"]), Path(str(state["ca_file"]))))
    except NoStack as refusal:
        print(refusal, file=sys.stderr)
        raise typer.Exit(2) from refusal
    except TourFailed as failure:
        print(f"the purchase failed: {failure}", file=sys.stderr)
        raise typer.Exit(1) from failure


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
