"""`python3 -m dev.bootstrap local|dev`: makes the virtual environment and installs a lock, with nothing but Python's own library.

Runs under whatever python3 the machine has, so that an old one gets a clear answer. What is installed is noted by the hash of
what asked for it: the second run does nothing, and a lock that came back by a checkout is noticed, whatever its date.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
BOOTSTRAP = ROOT / "requirements" / "bootstrap.lock"
LEAST = (3, 11)


class BootstrapFailed(Exception):
    """The environment cannot be made; the message says why and what to do."""


def check_machine() -> None:
    """Refuse a machine that lacks something, with the way to mend it. Raises BootstrapFailed."""
    if sys.version_info < LEAST:
        found = ".".join(map(str, sys.version_info[:3]))
        raise BootstrapFailed(
            f"{sys.executable} is Python {found}, 3.11 or newer is needed: `make PYTHON=/path/to/python3.11 …`"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise BootstrapFailed(f"Python's venv module is not installed: `apt-get install {name}`") from error


def step(title: str, *command: str | Path) -> None:
    """Run a long step: a line before it, its time after it. Raises BootstrapFailed with the step's own words."""
    print(f"  {title:<52}", end="", flush=True)
    began = time.monotonic()
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{time.monotonic() - began:5.1f} s" if done.returncode == 0 else "failed", flush=True)
    if done.returncode:
        raise BootstrapFailed(f"{title} failed:\n{(done.stdout + done.stderr).strip()}")


def fingerprint(*files: Path) -> str:
    """Return a hash of what decides an installation: the interpreter and the files."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def make_environment() -> None:
    """Make the virtual environment with the pinned installer in it."""
    stamp, wanted = VENV / ".stamp-bootstrap", fingerprint(BOOTSTRAP)
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if not PYTHON.exists():
        shutil.rmtree(VENV, ignore_errors=True)  # half made, or its Python is gone
        step("making the virtual environment", sys.executable, "-m", "venv", VENV)
    pip = (PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    step("installing the installer, uv", *pip, "--require-hashes", "-r", BOOTSTRAP)
    stamp.write_text(wanted)


def install(group: str) -> None:
    """Install a lock and the project itself."""
    lock = ROOT / "requirements" / f"{group}.lock"
    # README and LICENSE are part of the project's metadata by name only; pyproject.toml decides entry points and folders.
    stamp, wanted = VENV / f".stamp-{group}", fingerprint(BOOTSTRAP, lock, ROOT / "pyproject.toml")
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = (VENV / "bin" / "uv", "pip", "install", "-q", "--python", PYTHON)
    step(f"installing requirements/{group}.lock", *uv, "--require-hashes", "-r", lock)
    step("installing Paymesh itself", *uv, "--no-deps", "--no-build-isolation", "-e", ROOT)
    for other in VENV.glob(".stamp-*"):
        # The locks overlap: this one may just have replaced what another brought.
        if other.name not in (".stamp-bootstrap", stamp.name):
            other.unlink()
    stamp.write_text(wanted)


def main() -> int:
    """Install what the argument names. Returns the exit code."""
    try:
        check_machine()
        with BOOTSTRAP.open() as turn:
            # Two makes at once wait for each other.
            fcntl.flock(turn, fcntl.LOCK_EX)
            make_environment()
            install(sys.argv[1])
    except BootstrapFailed as failure:
        print(f"Paymesh cannot be installed: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.environ.pop("VIRTUAL_ENV", None)
    sys.exit(main())
