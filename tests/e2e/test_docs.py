"""docs/api.md and the README work as they are written: their blocks are run in order."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dev.paths import ROOT
from tests.support.mail import mail_to, token_of
from tests.support.stack import Shop

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_api_page_works(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMESH_DATA_DIR", str(shop.platform.folder))
    names: dict[str, Any] = {
        "identity_address": f"127.0.0.1:{shop.platform.state['ports']['identity']}",
        "notifications_tls": Path(shop.platform.folder, "tls", "notifications"),
    }
    run = run_page("docs/api.md", shop, names, monkeypatch)
    assert all(run[kind] >= 10 for kind in ("curl", "buf_curl", "python")), run


def test_the_look_around_of_the_readme_works(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_page("README.md", shop, {}, monkeypatch)
    assert run == {"curl": 2, "buf_curl": 1, "python": 1}


def run_page(page: str, shop: Shop, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Run a page's blocks in order, the first being its set-up; return how many there were of each kind."""
    email = f"{uuid.uuid4().hex}@example.com"
    here = {
        "EDGE": shop.platform.edge,
        "CURL_CA_BUNDLE": shop.platform.state["ca_file"],
        "EMAIL": email,
        "INBOX": f"http://127.0.0.1:{shop.platform.state['ports']['mail_inbox']}",
    }
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    (_, setup), *blocks = BLOCK.findall((ROOT / page).read_text())
    setup += "\n".join(f"{name}={shlex.quote(value)}" for name, value in here.items())
    run = Counter[str]()
    for kind, block in blocks:
        if "$MAIL_TOKEN" in block:
            names["mail_token"] = token_of(mail_to(shop.platform, email, "Verify"))
        if kind == "python":
            exec(compile(block, page, "exec"), names)  # noqa: S102  # our own page
        elif kind == "sh":
            kind = "buf_curl" if "buf_curl " in block or "buf curl " in block else "curl"
            names["answer"] = answer_of(setup, block, names)
        else:
            assert kind == "json", f"a block that nobody runs:\n{block}"
            json.loads(block)
        run[kind] += 1
    return run


def answer_of(setup: str, block: str, names: dict[str, Any]) -> Any:
    """Run a block of shell, with what earlier blocks made as variables; its answer must be JSON and no error."""
    variables = {name.upper(): value for name, value in names.items() if isinstance(value, str)}
    done = subprocess.run(
        ["bash", "-euc", f"{setup}\n{block}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    answer = json.loads(done.stdout)
    assert "code" not in answer or "details" not in answer, f"{block}\n{done.stdout}"
    return answer
