"""`make clean`: removes what was made here, and nothing else: the environment, the stack's data, caches.

Runs under the machine's own Python, because it removes the environment.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from dev.lock import Lock
from dev.paths import ROOT, StackRefused, data_dir
from dev.postgres import leave_shelter

MADE_BY_STACK: Final = (
    *("crash", "logs", "mail", "objects", "postgres", "private", "run", "stripe-sandbox", "tls", "valkey"),
    *("edge-ca.crt", "up.json", ".up.json.new", "lock"),
)
CACHES: Final = (
    *(".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"),
    *("build", "dist"),
)
FOLDERS: Final = ("clients", "dev", "envoy", "generated", "sandbox", "servers", "tests")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clean_data(folder: Path) -> None:
    """Remove a stack's data, by name: the folder may be one that the user chose, with other things in it. Raises StackRefused."""
    if not folder.is_dir():
        return
    lock = Lock(folder)
    leave_shelter(folder / "postgres")
    for name in MADE_BY_STACK:
        remove(folder / name)
    lock.release()
    if not any(folder.iterdir()):
        folder.rmdir()


def main() -> int:
    """Clean. Returns the exit code."""
    try:
        clean_data(data_dir())
    except StackRefused as refusal:
        print(f"nothing was removed: {refusal}", file=sys.stderr)
        return 1
    for name in CACHES:
        remove(ROOT / name)
    for folder in FOLDERS:
        for cache in (ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(cache)
    return 0


if __name__ == "__main__":
    sys.exit(main())
