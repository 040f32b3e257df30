"""How much the long proofs try: a size for every change, and one for `make chaos`. Each prints what it tried and its seed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from dev.paths import ROOT

LONG: Final = os.environ.get("PAYMESH_CHAOS") == "long"
SEED: Final = int(os.environ.get("PAYMESH_CHAOS_SEED", "20261125"))
FILE: Final = ROOT / "build" / "chaos.json"


def size(per_change: int, long: int) -> int:
    """Return how many to try; PAYMESH_CHAOS_SIZE overrides it for all."""
    asked = os.environ.get("PAYMESH_CHAOS_SIZE")
    return int(asked) if asked else long if LONG else per_change


@dataclass
class Tally:
    """What one proof tried."""

    name: str
    seed: int = SEED
    tried: int = 0
    failed: int = 0
    first: str = ""
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed} {self.name}")

    def note(self, holds: bool, what: object) -> None:
        """Count one try; the first that fails is kept for the message."""
        self.tried += 1
        if not holds:
            self.failed += 1
            self.first = self.first or str(what)

    def close(self, file: Path = FILE) -> None:
        """Print the count, and keep it for `build/chaos.json` in a long run. Raises AssertionError where one failed."""
        print(f"\n{self.name}: {self.tried} tried, {self.failed} failed, PAYMESH_CHAOS_SEED={self.seed}")
        if LONG:
            known = json.loads(file.read_text()) if file.exists() else {}
            known[self.name] = {"tried": self.tried, "failed": self.failed, "seed": self.seed}
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(known, indent=2, sort_keys=True))
        assert self.tried > 0, f"{self.name} tried nothing"
        assert not self.failed, f"{self.failed} of {self.tried} failed; the first: {self.first}"


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Return the tally of a proof, named after its test."""
    made = Tally(request.node.name.removeprefix("test_"))
    yield made
    made.close()
