"""docs/api.md works as it is written: its blocks are run in order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

from dev.paths import ROOT
from tests.support.mail import mail_to, token_of
from tests.support.stack import Shop

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_api_page_works(shop: Shop) -> None:
    names: dict[str, Any] = {
        "address": shop.platform.edge.removeprefix("https://"),
        "edge": shop.platform.edge,
        "ca": shop.platform.state["ca_file"],
        "email": f"{uuid.uuid4().hex}@example.com",
        "identity_address": f"127.0.0.1:{shop.platform.state['ports']['identity']}",
        "notifications_tls": Path(shop.platform.folder, "tls", "notifications"),
    }
    blocks = BLOCK.findall((ROOT / "docs" / "api.md").read_text())
    assert len(blocks) > 12
    for kind, block in blocks:
        if "$MAIL_TOKEN" in block:
            names["mail_token"] = token_of(mail_to(shop.platform, names["email"], "Verify"))
        if kind == "python":
            exec(compile(block, "docs/api.md", "exec"), names)  # noqa: S102  # our own page
        else:
            run(block, names)


def run(block: str, names: dict[str, Any]) -> None:
    """Run a block of shell, with what earlier blocks made as variables; its answer must be JSON and no error."""
    variables = {name.upper(): value for name, value in names.items() if isinstance(value, str)}
    done = subprocess.run(
        ["bash", "-euc", block],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    answer = json.loads(done.stdout)
    assert "code" not in answer or "details" not in answer, f"{block}\n{done.stdout}"
