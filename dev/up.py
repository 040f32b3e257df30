"""`make up`: starts the platform, makes a purchase through the edge, and stays up until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dev.paths import ROOT, Ports, StackRefused, data_dir
from dev.stack import Stack, check_ports, keep_renewed, make_stack, parts
from dev.supervisor import PartFailed, Supervisor


def say(name: str, seconds: float) -> None:
    """Print one progress line."""
    print(f"  {name:<16} {seconds:5.1f} s" if seconds else f"  {name}", flush=True)


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
            raise StackRefused(
                f"a stack is running from {folder} (pid {pid}): stop it with Ctrl-C or `kill {pid}`"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()


def write_state(stack: Stack, supervisor: Supervisor, **more: Any) -> None:
    """Write `up.json` at once: who reads it sees a whole one."""
    state = {
        "pid": os.getpid(),
        "edge_url": stack.edge_url,
        "ca_file": str(stack.ca_file),
        "ports": {name: getattr(stack.ports, name) for name in type(stack.ports).__dataclass_fields__},
        "parts": supervisor.seconds,
        "pids": supervisor.pids,
        "secrets_dir": str(stack.secrets.path),
        "database_address": stack.admin_url().rsplit("@", 1)[1].split("/", 1)[0],
        **more,
    }
    fresh = stack.folder / ".up.json.new"
    fresh.write_text(json.dumps(state, indent=2))
    fresh.rename(stack.folder / "up.json")


async def run(arguments: argparse.Namespace, began: float) -> int:
    """Start, tour, wait, stop."""
    folder = data_dir()
    lock = Lock(folder)
    stack = make_stack(folder, Ports.load())
    check_ports(stack)
    print(f"Paymesh: starting in {folder}", flush=True)
    supervisor = Supervisor(parts(stack), logs=folder / "logs", say=say, cwd=ROOT)
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    code = 0
    try:
        starting = asyncio.create_task(supervisor.start())
        await asyncio.wait({starting, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            starting.cancel()
        else:
            starting.result()
            code = await _serve(arguments, stack, supervisor, stop, began)
    except* PartFailed as failures:
        for failure in failures.exceptions:
            print(f"\n{failure}", file=sys.stderr)
        code = 1
    finally:
        print("\nPaymesh: stopping", flush=True)
        (folder / "up.json").unlink(missing_ok=True)
        await supervisor.stop()
        print("Paymesh: stopped", flush=True)
        del lock
    return code


async def _serve(
    arguments: argparse.Namespace, stack: Stack, supervisor: Supervisor, stop: asyncio.Event, began: float
) -> int:
    from dev.tour import tour

    ready = round(time.monotonic() - began, 2)
    print(f"Paymesh: ready after {ready} s at {stack.edge_url}\n", flush=True)
    write_state(stack, supervisor, ready_seconds=ready)
    if not arguments.no_tour:
        captured = await asyncio.to_thread(tour, stack.edge_url, stack.ca_file)
        first = round(captured - began, 2)
        write_state(stack, supervisor, ready_seconds=ready, first_captured_payment_seconds=first)
        print(f"\nFirst captured payment after {first} s. Logs: {stack.folder / 'logs'}")
    if arguments.exit_after_tour:
        return 0
    print("Stop with Ctrl-C. Check the books with `make audit`.", flush=True)
    renewing = asyncio.create_task(keep_renewed(stack))
    while not stop.is_set():
        try:
            async with asyncio.timeout(2):
                await stop.wait()
        except TimeoutError:
            continue
    renewing.cancel()
    return 0


def main() -> int:
    """Parse and run."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-tour", action="store_true", help="start without the purchase")
    parser.add_argument("--exit-after-tour", action="store_true", help="stop when the purchase is made")
    try:
        return asyncio.run(run(parser.parse_args(), began))
    except StackRefused as refusal:
        print(f"Paymesh cannot start: {refusal}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
