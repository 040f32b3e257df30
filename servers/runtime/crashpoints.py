"""Named points at which a test, or a curious operator in the dev profile, may have a process die by SIGKILL.

A point fires once: where the file `PAYMESH_CRASH_DIR/<name>` exists it is removed and the process kills itself. Without a
crash folder, which only the dev and test profiles accept, a point is one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_declared: set[str] = set()
_folder: Path | None = None
_die: Callable[[], None] = _kill


def declare(*names: str) -> None:
    """Register crash points, so that the tests can enumerate them."""
    _declared.update(names)


def declared() -> tuple[str, ...]:
    """Return every crash point that the imported modules declare."""
    return tuple(sorted(_declared))


def arm(folder: Path | None, *, die: Callable[[], None] = _kill) -> None:
    """Set the folder that is looked into; None disarms all points. `die` is for a test that plays the process itself."""
    global _folder, _die
    _folder, _die = folder, die


def crash_point(name: str) -> None:
    """Die here if a file of this name lies in the crash folder."""
    if _folder is None:
        return
    try:
        (_folder / name).unlink()
    except FileNotFoundError:
        return
    _die()
