"""`make chaos`: the long proofs. `ONLY=payments` picks; PAYMESH_CHAOS_SEED replays. Writes `build/chaos.json`: per proof how many
were tried, how many failed, and the seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dev.paths import ROOT

FILE: Final = ROOT / "build" / "chaos.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A run of pytest with sizes of its own."""

    tests: Sequence[str]
    env: Mapping[str, str]


PROOFS: Final[Mapping[str, Sequence[Proof]]] = {
    "payments": (
        Proof(tests=("tests/chaos",), env={}),
        Proof(
            tests=("tests/integration/payments/test_model.py",),
            env={"PAYMESH_MODEL_EXAMPLES": "20000", "PAYMESH_MODEL_STEPS": "25"},
        ),
        Proof(tests=("tests/e2e", "-k", "kill or crash"), env={"PAYMESH_CRASH_ROUNDS": "20"}),
    ),
}


def main() -> int:
    """Run what ONLY names, or all. Returns 1 where a proof failed."""
    asked = [name.strip() for name in os.environ.get("ONLY", "").split(",") if name.strip()] or list(PROOFS)
    unknown = sorted(set(asked) - set(PROOFS))
    if unknown:
        print(f"ONLY names {', '.join(unknown)}; there are {', '.join(PROOFS)}", file=sys.stderr)
        return 2
    good = True
    for name in asked:
        for proof in PROOFS[name]:
            print(f"{name}: {' '.join(proof.tests)}", flush=True)
            command = [sys.executable, "-m", "pytest", "-q", "-s", *proof.tests]
            env = {**os.environ, "PAYMESH_CHAOS": "long", **proof.env}
            good = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0 and good
    if FILE.exists():
        print(json.dumps(json.loads(FILE.read_text()), indent=2))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
