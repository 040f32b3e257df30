"""`paymesh audit` proves the books; `paymesh doctor` says whether the local stack is well; `paymesh tour` buys something on it;
`paymesh webhooks` and `paymesh staff` are for whoever runs the platform."""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer

from paymesh_cli import staff, webhooks

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(staff.app, name="staff")
SHOWN: Final = 5
ANSWER_SECONDS: Final = 5.0
DATABASES: Final = ("identity", "payments", "wallets", "notifications", "eventlog")


class NoStack(Exception):
    """There is nothing to look at, and what to do about it."""


def state_of(folder: Path) -> dict[str, Any]:
    """Return what a running stack says of itself. Raises NoStack."""
    file = folder / "up.json"
    if not file.exists():
        elsewhere = "" if "PAYMESH_DATA_DIR" in os.environ else ", or say with PAYMESH_DATA_DIR where one runs"
        raise NoStack(f"no stack runs from {folder}: start one with `make up`{elsewhere}")
    try:
        state: dict[str, Any] = json.loads(file.read_text())
        pid = int(state["pid"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoStack(f"{file} cannot be read ({error}): stop the stack and start it again with `make up`") from error
    if not runs(pid):
        raise NoStack(f"the stack of {folder} has ended without stopping: start it again with `make up`")
    return state


def runs(pid: int) -> bool:
    """Tell whether a process is there."""
    return Path(f"/proc/{pid}").exists()


@contextmanager
def told() -> Iterator[None]:
    """Say what stands in the way, without a trace of ours, and exit with 2."""
    try:
        yield
    except NoStack as refusal:
        print(f"paymesh: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from refusal


def audit_urls(folder: Path) -> dict[str, str]:
    """Return where the books are: PAYMESH_AUDIT_URLS (JSON by database), else the local stack. Raises NoStack."""
    given = os.environ.get("PAYMESH_AUDIT_URLS")
    if given:
        try:
            urls: dict[str, str] = {name: str(url) for name, url in json.loads(given).items()}
        except (ValueError, AttributeError) as error:
            raise NoStack(f"PAYMESH_AUDIT_URLS must be a JSON object of addresses by database: {error}") from error
        if missing := [name for name in DATABASES if name not in urls]:
            raise NoStack(f"PAYMESH_AUDIT_URLS lacks {', '.join(missing)}")
        return urls
    state = state_of(folder)
    password = Path(str(state["secrets_dir"]), "role_audit").read_text()
    address = state["database_address"]
    return {name: f"postgresql://paymesh_audit:{password}@{address}/{name}" for name in DATABASES}


def default_folder() -> Path:
    """Return the stack's folder."""
    return Path(os.environ.get("PAYMESH_DATA_DIR", ".paymesh")).resolve()


@app.command()
def audit() -> None:
    """Prove the books, invariant by invariant; exits with 1 where one does not hold."""
    from sqlalchemy.exc import OperationalError

    from servers.audit.prove import prove

    with told():
        try:
            verdicts = prove(audit_urls(default_folder()))
        except OperationalError as error:
            raise NoStack(f"the books cannot be read: {error.orig}") from error
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
    """Say which parts of the local stack run, whether its edge answers, and where its logs are; exits with 1 if not all is well."""
    with told():
        state = state_of(default_folder())
    gone = [name for name, pid in state["pids"].items() if not runs(pid)]
    for name, pid in state["pids"].items():
        print(f"{name:<16} pid {pid:<8} {'gone' if name in gone else 'runs'}")
    wrong = edge_trouble(state["edge_url"], Path(state["ca_file"]))
    print(f"{'edge':<16} {state['edge_url']} {wrong or 'answers'}")
    print(f"{'mails':<16} http://localhost:{state['ports']['mail_inbox']}")
    print(f"{'logs':<16} {state['logs_dir']}")
    if gone:
        logs = ", ".join(f"{name}.log" for name in gone)
        print(f"paymesh: what ended is started again within seconds; if it stays so, see {logs}", file=sys.stderr)
    elif wrong:
        print("paymesh: the parts run and the edge does not answer; see envoy.log", file=sys.stderr)
    raise typer.Exit(1 if gone or wrong else 0)


def edge_trouble(edge_url: str, ca_file: Path) -> str:
    """Return why the edge does not answer, or ""."""
    import httpx

    try:
        trust = ssl.create_default_context(cafile=str(ca_file))
        answer = httpx.get(f"{edge_url}/healthz", verify=trust, timeout=ANSWER_SECONDS, trust_env=False)
    except OSError as error:
        return f"cannot be trusted: {ca_file}: {error}"
    except httpx.HTTPError as error:
        return f"does not answer: {error}"
    return "" if answer.is_success else f"answers with {answer.status_code}"


@app.command()
def tour() -> None:
    """Make two purchases on the local stack, each call shown as lines that work as they are pasted."""
    import asyncio

    from dev.tour import TourFailed
    from dev.tour import tour as purchase

    with told():
        state = state_of(default_folder())
    try:
        asyncio.run(purchase(state["edge_url"], Path(state["ca_file"])))
    except TourFailed as failure:
        print(f"paymesh: the purchase failed: {failure}", file=sys.stderr)
        print("paymesh: `paymesh doctor` says which parts run", file=sys.stderr)
        raise typer.Exit(1) from failure


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
