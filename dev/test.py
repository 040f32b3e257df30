"""`make test`: everything that proves the platform, the quick failures first. The audit at the end is part of the last step:
the platform that the end-to-end tests beat up must have books that add up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from dev.paths import ROOT

STOP_SECONDS: Final = 60
"""What pytest may need to stop what its tests started."""


def main() -> int:
    """Run the checks, then every test that needs real parts. Returns the exit code of the first that fails."""
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # What runs is in sessions of its own: these reach it only where this process unwinds.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    code = (
        _alone("dev.check")
        or _side_by_side(("tests/integration",), ("tests/chaos", "tests/contract"))
        or _alone("pytest", "-q", "tests/e2e")
    )
    if not code:
        print(f"test: all passed in {time.monotonic() - began:.0f} s")
    return code


def _alone(*module: str) -> int:
    with _running(*module) as process:
        return process.wait()


def _side_by_side(shown: tuple[str, ...], kept: tuple[str, ...]) -> int:
    """Run two sets of tests at the same time, since each of them keeps one core busy: `shown` as it goes; what `kept` printed when
    it is done. Where the first fails the second is stopped. Returns an exit code.

    A process each, here as everywhere: CPython 3.11 cannot parse modules any more after a deep recursion was cut short, which the
    contract's tests of deeply nested JSON do, and Hypothesis parses. They are therefore the last of theirs.
    """
    with tempfile.TemporaryFile() as printed, _running("pytest", "-q", *kept, into=printed) as beside:
        code = _alone("pytest", "-q", *shown)
        if not code:
            code = beside.wait()
            printed.seek(0)
            sys.stdout.flush()
            shutil.copyfileobj(printed, sys.stdout.buffer)
            sys.stdout.flush()
        return code


@contextmanager
def _running(*module: str, into: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module, and have it stop what it started where the block ends before it.

    In a session of its own, so that Ctrl-C reaches it once, from here: pytest takes a second one as "do not clean up".
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *module], cwd=ROOT, stdout=into, stderr=into, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
