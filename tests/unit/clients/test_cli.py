"""What `paymesh` says where something stands in the way: what it is and what to do, and no trace of ours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from paymesh_cli.main import DATABASES, app
from typer.testing import CliRunner

NOBODY = 2**22 + 1
"""A process id beyond what Linux gives."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a stack."""
    monkeypatch.setenv("PAYMESH_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("PAYMESH_AUDIT_URLS", raising=False)
    return tmp_path


def state(folder: Path, **changes: Any) -> None:
    """Write what a stack says of itself, whose edge nobody is at."""
    facts = {
        "pid": os.getpid(),
        "pids": {"wallets": os.getpid()},
        "edge_url": "https://localhost:1",
        "ca_file": str(folder / "absent.crt"),
        "ports": {"mail_inbox": 8026},
        "logs_dir": str(folder / "logs"),
    }
    (folder / "up.json").write_text(json.dumps(facts | changes))


def said(*words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it printed and what it complained of."""
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["audit", "doctor", "tour"])
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (None, ("no stack runs from", "make up")),
        ("{", ("up.json cannot be read", "make up")),
        ("[]", ("up.json cannot be read", "make up")),
        (json.dumps({"pid": NOBODY}), ("has ended without stopping", "make up")),
    ],
    ids=["absent", "torn", "of another kind", "left behind"],
)
def test_without_a_stack_every_command_says_so_and_how_to_start_one(
    folder: Path, command: str, facts: str | None, words: tuple[str, ...]
) -> None:
    if facts is not None:
        (folder / "up.json").write_text(facts)
    code, printed, complaint = said(command)
    assert (code, printed) == (2, "")
    assert all(word in complaint for word in words)
    assert str(folder) in complaint
    assert len(complaint.splitlines()) == 1


def test_doctor_names_what_is_gone_and_its_log(folder: Path) -> None:
    state(folder, pids={"wallets": NOBODY, "payments": os.getpid()})
    code, printed, complaint = said("doctor")
    assert code == 1
    assert [line.split()[::3] for line in printed.splitlines()[:2]] == [["wallets", "gone"], ["payments", "runs"]]
    assert "wallets.log" in complaint
    assert "payments.log" not in complaint


def test_doctor_is_not_content_with_processes_alone(folder: Path) -> None:
    state(folder)
    code, printed, complaint = said("doctor")
    assert (code, "the edge does not answer" in complaint) == (1, True)
    assert "cannot be trusted" in printed


def test_a_tour_that_fails_says_why_and_whom_to_ask(folder: Path) -> None:
    state(folder)
    code, _, complaint = said("tour")
    assert code == 1
    assert "the purchase failed" in complaint
    assert "paymesh doctor" in complaint


@pytest.mark.parametrize(
    ("given", "words"),
    [("{", "must be a JSON object"), ("[]", "must be a JSON object"), ('{"identity": "x"}', "lacks payments")],
)
def test_audit_says_what_is_wrong_with_the_addresses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    monkeypatch.setenv("PAYMESH_AUDIT_URLS", given)
    code, _, complaint = said("audit")
    assert (code, words in complaint) == (2, True)


def test_audit_says_that_the_books_are_out_of_reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = dict.fromkeys(DATABASES, "postgresql://a:b@127.0.0.1:1/c")
    monkeypatch.setenv("PAYMESH_AUDIT_URLS", json.dumps(away))
    code, _, complaint = said("audit")
    assert (code, "the books cannot be read" in complaint) == (2, True)
