"""P17: how long a newcomer waits: from the command to the first captured payment, with packages and caches in place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from dev.bench.load import verdict
from dev.bench.platform import free_port
from dev.paths import ROOT, Ports

ROUNDS: Final = 3
TOLD: Final = re.compile(r"(ready|first captured payment) after ([0-9.]+) s")


def _once() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        ports = {f"PAYMESH_PORT_{field.name.upper()}": str(free_port()) for field in fields(Ports)}
        env = {"PATH": os.environ["PATH"], "PAYMESH_DATA_DIR": scratch, **ports}
        command = [sys.executable, "-m", "dev.up", "--exit-after-tour"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return {name: float(seconds) for name, seconds in TOLD.findall(done.stdout)}


def run() -> dict[str, Any]:
    """Start and buy, a few times."""
    runs = [_once() for _ in range(ROUNDS)]
    rounds = [one["first captured payment"] for one in runs]
    absolute = {"ready_seconds": [one["ready"] for one in runs]}
    return verdict(
        rounds=rounds, aim=15, must=30, absolute=absolute, cpu_us_per_op=None, green=True, lower_is_better=True
    )
