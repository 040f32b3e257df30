"""docs/sandbox.md and the README say what the sandbox does: their tables are made from the code, and their blocks run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dev.paths import ROOT
from sandbox.stripe import banks, faults, mishaps
from sandbox.stripe.cards import BY_ID
from sandbox.stripe.switches import SWITCHES, Switch
from sandbox.stripe.tables import PAGE, filled
from tests.support.sandbox import KEY, SandboxProcess

README = ROOT / "sandbox/README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    """Return a page's blocks of a language."""
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


def pointed_at(sandbox: SandboxProcess, text: str) -> str:
    """Return a block with this sandbox's address and key."""
    return text.replace("http://127.0.0.1:9100", sandbox.url).replace("sk_test_me", KEY)


def test_the_tables_are_made_from_the_code() -> None:
    text = PAGE.read_text()
    assert text == filled(text), "run python -m sandbox.stripe.tables"
    assert [identifier for identifier in BY_ID if f"`{identifier}`" not in text] == []


def test_the_page_has_every_kind_of_fault() -> None:
    requests, webhooks = PAGE.read_text().split("| kind, of a request |")[1].split("| kind, of an event |")
    webhooks = webhooks.split("###")[0]
    assert [kind for kind in faults.Kind if not re.search(rf"^\| `{kind}`", requests, re.MULTILINE)] == []
    assert [kind for kind in mishaps.Kind if not re.search(rf"^\| .*`{kind}`.* \|", webhooks, re.MULTILINE)] == []


@pytest.mark.parametrize("path", [PAGE, README], ids=lambda path: path.name)
def test_the_python_runs(sandbox: SandboxProcess, path: Path) -> None:
    found = blocks(path, "python")
    assert found
    for text in found:
        done = subprocess.run(
            [sys.executable, "-c", pointed_at(sandbox, text)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_curl_lines_run(sandbox: SandboxProcess) -> None:
    found = [text for text in blocks(PAGE, "sh") if text.startswith("curl")]
    assert len(found) == 2
    for text in found:
        line = pointed_at(sandbox, text).replace("curl ", "curl --fail-with-body -sS ")
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    httpx.delete(f"{sandbox.url}/_sandbox/weather").raise_for_status()


def test_it_starts_as_the_page_says(tmp_path: Path) -> None:
    [start] = [text for text in blocks(PAGE, "sh") if "python -m sandbox.stripe" in text]
    _, line = start.strip().splitlines()
    settings = dict(word.split("=", 1) for word in line.split() if "=" in word)
    assert settings.keys() == {"STRIPE_SANDBOX_DATA_DIR", "STRIPE_SANDBOX_API_KEY"}
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.stripe"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert [name for name in settings if f"{name}: Field required" not in done.stderr] == []
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: f"{switch.method} {switch.path}")
def test_each_switch_is_there(sandbox: SandboxProcess, switch: Switch) -> None:
    url = f"{sandbox.url}/_sandbox/{switch.path.replace('{id}', 'none')}"
    answer = httpx.request(switch.method, url, json={} if switch.method == "POST" else None)
    assert "no switch" not in answer.text
    assert answer.status_code < 500
    httpx.delete(f"{sandbox.url}/_sandbox/faults").raise_for_status()


def test_the_list_of_switches_is_whole(sandbox: SandboxProcess) -> None:
    listed = {(switch.method, switch.path) for switch in SWITCHES}
    assert {("POST", kind) for kind in banks.MAKES} <= listed
    assert {("POST", f"{kind}/{{id}}/{verb}") for kind, verb in banks.VERBS} <= listed
    answer = httpx.get(f"{sandbox.url}/_sandbox/").json()["switches"]
    assert {(one["method"], one["path"]) for one in answer} == listed
    assert httpx.post(f"{sandbox.url}/_sandbox/nothing", json={}).status_code == 404
