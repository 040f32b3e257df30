"""`make test`: everything that proves the platform, the quick failures first. The audit at the end is part of the last step:
the platform that the end-to-end tests beat up must have books that add up."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from dev.paths import ROOT

# A process each: CPython 3.11 cannot parse modules any more after a deep recursion was cut short, which the contract's tests of
# deeply nested JSON do, and Hypothesis parses.
FOLDERS: Final = (("tests/integration", "tests/chaos"), ("tests/contract",), ("tests/e2e",))


def main() -> int:
    """Run the checks, then every test that needs real parts. Returns the exit code of the first that fails."""
    began = time.monotonic()
    steps = (
        [sys.executable, "-m", "dev.check"],
        *([sys.executable, "-m", "pytest", "-q", *folders] for folders in FOLDERS),
    )
    for step in steps:
        code = subprocess.run(step, cwd=ROOT, check=False).returncode
        if code:
            return code
    print(f"test: all passed in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
