"""Named points at which a test, or a curious operator in the dev profile, may have a process die by SIGKILL.

A point fires once: where the file `PAYMESH_CRASH_DIR/<name>` exists it is removed and the process kills itself. Without a
crash folder, which only the dev and test profiles accept, a point is one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_declared: set[str] = set()
_folder: Path | None = None


def declare(*names: str) -> None:
    """Register crash points, so that the tests can enumerate them."""
    _declared.update(names)


def declared() -> tuple[str, ...]:
    """Return every crash point that the imported modules declare."""
    return tuple(sorted(_declared))


def arm(folder: Path | None) -> None:
    """Set the folder that is looked into; None disarms all points."""
    global _folder
    _folder = folder


def crash_point(name: str) -> None:
    """Die here if a file of this name lies in the crash folder."""
    if _folder is None:
        return
    try:
        (_folder / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
