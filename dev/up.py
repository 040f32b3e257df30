"""`make up`: starts the platform, makes a purchase through the edge, and stays up until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from dev.lock import Lock
from dev.paths import ROOT, Ports, StackRefused, data_dir
from dev.processes import Records, age_seconds, interrupted
from dev.stack import Stack, check_ports, keep_renewed, make_stack, parts
from dev.supervisor import PartFailed, Supervisor

PR_SET_PDEATHSIG: Final = 1
PARENT_SECONDS: Final = 0.5


def say(name: str, seconds: float | None = None) -> None:
    """Print one progress line."""
    print(f"  {name}" if seconds is None else f"  {name:<16} {seconds:5.1f} s", flush=True)


class State:
    """`up.json`: what others may know of the running stack. It names files with secrets and holds none."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._file = stack.folder / "up.json"
        self._facts: dict[str, Any] = {}

    def write(self, supervisor: Supervisor, **facts: Any) -> None:
        """Write the file at once: who reads it sees a whole one."""
        self._facts |= facts
        stack = self._stack
        state = {
            "pid": os.getpid(),
            "edge_url": stack.edge_url,
            "ca_file": str(stack.ca_file),
            "ports": {name: getattr(stack.ports, name) for name in type(stack.ports).__dataclass_fields__},
            "parts": supervisor.seconds,
            "pids": supervisor.pids,
            "logs_dir": str(stack.folder / "logs"),
            "secrets_dir": str(stack.secrets.path),
            "database_address": stack.database_address(),
            "database_url_files": stack.secret_files(),
            **self._facts,
        }
        fresh = self._file.with_name(".up.json.new")
        fresh.write_text(json.dumps(state, indent=2))
        fresh.rename(self._file)

    def refresh(self, supervisor: Supervisor) -> None:
        """Write it again where it was written: a part has a new pid."""
        if self._file.exists():
            self.write(supervisor)

    def remove(self) -> None:
        """Say that no stack runs."""
        self._file.unlink(missing_ok=True)


class Stop:
    """Whether the user wants the stack to end: the first signal asks, the second one hurries."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.supervisor: Supervisor | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Ask once more."""
        if self._event.is_set() and self.supervisor is not None:
            self.supervisor.hurry()
        self._event.set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._event.wait()

    async def follow(self, parent: int) -> None:
        """Ask when the `make` above was interrupted by a SIGINT that reached only it."""
        while not self._event.is_set():
            if interrupted(parent):
                self.ask()
            await asyncio.sleep(PARENT_SECONDS)


class Run:
    """One run of the stack, from start to stop."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, stop: Stop) -> None:
        self._arguments = arguments
        self._stop = stop
        # What a user waits for: from the start of `make up`, installation included.
        self._began = time.monotonic() - age_seconds(os.getppid() if arguments.under_make else os.getpid())
        records = Records(folder / "run")
        records.end_leftovers(say)
        self._stack = make_stack(folder, Ports.load())
        check_ports(self._stack)
        self._state = State(self._stack)
        self._state.remove()
        self._supervisor = Supervisor(
            parts(self._stack, say),
            logs=folder / "logs",
            records=records,
            say=say,
            cwd=ROOT,
            changed=lambda: self._state.refresh(self._supervisor),
        )
        stop.supervisor = self._supervisor

    async def live(self) -> int:
        """Start, tour, stay until the user or a failure ends it, and stop. Returns the exit code."""
        print(f"Paymesh: starting in {self._stack.folder}", flush=True)
        work = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            return await self._outcome(work)
        finally:
            stopping.cancel()
            print("\nPaymesh: stopping", flush=True)
            self._state.remove()
            await self._supervisor.stop()
            print("Paymesh: stopped, nothing of it runs any more", flush=True)

    async def _outcome(self, work: asyncio.Task[int]) -> int:
        try:
            return await work
        except asyncio.CancelledError:
            return 0  # the user ended it
        except ExceptionGroup as group:
            told, untold = group.split((PartFailed, StackRefused))
            if untold is not None:
                raise untold from group
            for failure in told.exceptions if told is not None else ():
                print(f"\n{failure}", file=sys.stderr)
            return 1

    async def _work(self) -> int:
        await self._supervisor.start()
        ready = self._elapsed()
        self._state.write(self._supervisor, ready_seconds=ready)
        print(f"Paymesh: ready after {ready} s at {self._stack.edge_url}", flush=True)
        toured = self._arguments.no_tour or await self._tour()
        if self._arguments.exit_after_tour:
            return 0 if toured else 1
        print("Stop with Ctrl-C. Check the books with `make audit`.", flush=True)
        await keep_renewed(self._stack, say)
        return 0

    async def _tour(self) -> bool:
        from dev.tour import TourFailed, tour

        try:
            captured = await tour(self._stack.edge_url, self._stack.ca_file)
        except TourFailed as failure:
            # The platform stays up: whoever broke the purchase wants to look at it.
            print(f"\nThe purchase failed: {failure}\nLogs: {self._stack.folder / 'logs'}", file=sys.stderr, flush=True)
            return False
        first = round(captured - self._began, 2)
        self._state.write(self._supervisor, first_captured_payment_seconds=first)
        print(f"\nPaymesh: first captured payment after {first} s. Logs: {self._stack.folder / 'logs'}", flush=True)
        print(f"Mails: http://localhost:{self._stack.ports.mail_inbox}", flush=True)
        return True

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._began, 2)


def follow_parent() -> int:
    """End with the `make` that started this, even if that was killed. Returns its pid."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise StackRefused("the make that started this has ended already")
    return parent


async def run(arguments: argparse.Namespace) -> int:
    """Run the stack. Raises StackRefused."""
    stop = Stop()
    following = asyncio.create_task(stop.follow(follow_parent())) if arguments.under_make else None
    lock = Lock(data_dir())
    try:
        return await Run(arguments, data_dir(), stop).live()
    finally:
        lock.release()
        if following is not None:
            following.cancel()


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-tour", action="store_true", help="start without the purchase")
    parser.add_argument("--exit-after-tour", action="store_true", help="stop when the purchase is made")
    parser.add_argument("--under-make", action="store_true", help="end when the process that started this ends")
    try:
        return asyncio.run(run(parser.parse_args()))
    except StackRefused as refusal:
        print(f"Paymesh cannot start:\n  {refusal}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
