"""One stack at a time in a folder. Needs nothing but Python's own library: `make clean` uses it, too."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dev.paths import StackRefused


class Lock:
    """Only one stack per folder; the file says which process has it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            pid = self._file.read().strip()
            self._file.close()
            raise StackRefused(
                f"a stack is running from {folder} (pid {pid}): stop it with Ctrl-C or `kill {pid}`"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let the next stack start."""
        self._file.close()
