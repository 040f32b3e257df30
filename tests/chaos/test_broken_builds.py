"""The proofs prove something: each build that is broken on purpose is caught by the tests that are there for it."""

from __future__ import annotations

import os
import subprocess
import sys

from dev.paths import ROOT
from tests.support.broken_builds import BREAKS
from tests.support.postgres import TestPostgres
from tests.support.tally import Tally


def test_every_broken_build_is_caught(postgres: TestPostgres, tally: Tally) -> None:
    for name, broken in BREAKS.items():
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *broken.caught_by]
        env = {
            **os.environ,
            "PAYMESH_BREAK": name,
            "PAYMESH_CHAOS_SIZE": "30",
            "PAYMESH_TEST_POSTGRES": str(postgres.port),
        }
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
        # 1: tests ran, and some failed. Anything else says nothing about the break.
        tally.note(
            done.returncode == 1 and "failed" in done.stdout, f"{name}: {done.returncode}\n{done.stdout[-1500:]}"
        )
    print(f"\n{tally.tried - tally.failed} of {len(BREAKS)} caught")
