"""Processes by number, safely: which still run, whether a number still means the same process, and how they end.

A number alone proves nothing, because the kernel uses it again; number, start time and boot together do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dev.paths import StackRefused

END_SECONDS: Final = 10.0
SIGINT_BIT: Final = 1 << (signal.SIGINT - 1)


def tethered(command: Sequence[str | Path], death_signal: signal.Signals) -> list[str]:
    """Return the command such that the kernel sends it `death_signal` when the process that starts it ends, however.

    A program does it, not a `preexec_fn`: Python code between fork and exec can hang where threads run. Raises StackRefused.
    """
    if shutil.which("setpriv") is None:
        raise StackRefused("setpriv is missing: install util-linux (`apt-get install util-linux`)")
    name = death_signal.name.removeprefix("SIG")
    return ["setpriv", "--pdeathsig", name, "--", *(str(word) for word in command)]


def start_ticks(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None if there is none, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def age_seconds(pid: int) -> float:
    """Return how long ago a running process began; what Python itself took to start counts, too."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    began = start_ticks(pid)
    return uptime - began / os.sysconf("SC_CLK_TCK") if began is not None else 0.0


def working_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is `folder`: for Postgres' data, everything that serves it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink() == folder:
                found.append(int(entry.parent.name))
        except OSError:
            continue  # it ended, or belongs to somebody else
    return found


def interrupted(pid: int) -> bool:
    """Tell whether a `make` was interrupted and now waits for its child: GNU make passes on SIGTERM, but not a SIGINT that only
    it received. While it waits it has given its handler of SIGINT back and blocks the signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = {
        name: int(value, 16)
        for name, _, value in (line.partition(":") for line in lines)
        if name.startswith("Sig") and name != "SigQ"
    }
    return bool(masks["SigBlk"] & SIGINT_BIT) and not masks["SigCgt"] & SIGINT_BIT


class Records:
    """One file per running part, so that a later run knows what an earlier one left behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def write(self, name: str, pid: int, stop_signal: signal.Signals) -> None:
        """Note a process that was just started."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = {"pid": pid, "started": start_ticks(pid), "boot": self._boot, "signal": int(stop_signal)}
        (self._folder / f"{name}.pid").write_text(json.dumps(record))

    def forget(self, name: str) -> None:
        """Drop the note of a process that has ended."""
        (self._folder / f"{name}.pid").unlink(missing_ok=True)

    def end_leftovers(self, say: Callable[[str], None]) -> None:
        """End what an earlier run left behind, and only that. Raises StackRefused where it may not, or cannot."""
        for file in sorted(self._folder.glob("*.pid")):
            try:
                record = json.loads(file.read_text())
                pid, started, boot = int(record["pid"]), record["started"], record["boot"]
                stop_signal = signal.Signals(record["signal"])
            except (ValueError, KeyError, TypeError):
                file.unlink()  # half written when the machine went down: nothing of that time runs
                continue
            if boot == self._boot and started is not None and start_ticks(pid) == started:
                say(f"{file.stem} of an earlier run still runs (pid {pid}): ending it")
                end(pid, started, stop_signal)
            file.unlink()


def end(pid: int, started: int, stop_signal: signal.Signals) -> None:
    """End one process, politely and then by force. Raises StackRefused."""
    for number in (stop_signal, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise StackRefused(
                f"process {pid} of an earlier run belongs to another user: end it, then try again"
            ) from error
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            if start_ticks(pid) != started:
                return
            time.sleep(0.02)
    raise StackRefused(f"process {pid} of an earlier run does not end: look at it with `ps -p {pid}`, then try again")
