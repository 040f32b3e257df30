"""Starts programs in the order of their needs, watches, restarts and stops them. Knows nothing of payments.

A program dies with the supervisor whatever happens to it: each asks the kernel for a signal at its parent's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dev.processes import Records, tethered

RESTART_SECONDS: Final = (0.1, 0.5, 2.0, 5.0)
CALM_SECONDS: Final = 10.0
STOP_SECONDS: Final = 12.0
READY_SECONDS: Final = 45.0
PROBE_SECONDS: Final = 0.04
TAIL_LINES: Final = 15

Probe = Callable[[], Awaitable[bool]]


class PartFailed(Exception):
    """A part ended before it was ready, or never became so."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program of the stack."""

    name: str
    command: Callable[[], Sequence[str | Path]]
    """Makes ready what the program needs on disk and returns its command line; called in a thread, before each start."""
    ready: Probe
    needs: tuple[str, ...] = ()
    """Parts that are ready before this one starts, and stop after it."""
    uses: tuple[str, ...] = ()
    """Parts that stop after this one, although it may start beside them."""
    env: Mapping[str, str] = field(default_factory=dict)
    once: bool = False
    """Whether the program is to run to its end, like a migration, instead of serving."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """What the program gets when the supervisor is gone."""


class Supervisor:
    """Runs parts."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        logs: Path,
        records: Records,
        say: Callable[[str, float | None], None],
        cwd: Path,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts = {part.name: part for part in parts}
        self._logs = logs
        self._records = records
        self._say = say
        self._cwd = cwd
        self._changed = changed
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ready = {part.name: asyncio.Event() for part in parts}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._spawning: set[asyncio.Task[asyncio.subprocess.Process]] = set()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self.seconds: dict[str, float] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Return the pid of every running part."""
        return {name: process.pid for name, process in self._processes.items() if process.returncode is None}

    async def start(self) -> None:
        """Start all parts, each as soon as what it needs is ready. Raises a group of PartFailed and what commands raise."""
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with asyncio.TaskGroup() as group:
            for part in self._parts.values():
                self._rotate(part)
                group.create_task(self._bring_up(part))

    async def _bring_up(self, part: Part) -> None:
        for need in part.needs:
            await self._ready[need].wait()
        began = time.monotonic()
        process = await self._spawn(part)
        if part.once:
            if await process.wait():
                raise PartFailed(f"{part.name} failed:\n{self._tail(part)}")
            self._records.forget(part.name)
        else:
            await self._until_ready(part, process, began)
            self._watchers[part.name] = asyncio.create_task(self._watch(part, process))
        self.seconds[part.name] = round(time.monotonic() - began, 2)
        self._say(part.name, self.seconds[part.name])
        self._ready[part.name].set()

    async def _until_ready(self, part: Part, process: asyncio.subprocess.Process, began: float) -> None:
        while not await part.ready():
            if process.returncode is not None:
                raise PartFailed(f"{part.name} {_ended(process.returncode)}:\n{self._tail(part)}")
            if time.monotonic() - began > READY_SECONDS:
                raise PartFailed(f"{part.name} was not ready within {READY_SECONDS:.0f} s:\n{self._tail(part)}")
            await asyncio.sleep(PROBE_SECONDS)

    async def _spawn(self, part: Part) -> asyncio.subprocess.Process:
        command = await asyncio.to_thread(part.command)
        # A task of its own: if the start is cancelled at this very moment, `stop` still learns of the process.
        task = asyncio.create_task(self._create(part, command))
        self._spawning.add(task)
        task.add_done_callback(self._spawning.discard)
        return await asyncio.shield(task)

    async def _create(self, part: Part, command: Sequence[str | Path]) -> asyncio.subprocess.Process:
        with (self._logs / f"{part.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *tethered(command, part.death_signal),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", **part.env},
                # A session of its own: Ctrl-C reaches the supervisor alone, which stops the parts in order.
                start_new_session=True,
            )
        self._processes[part.name] = process
        self._records.write(part.name, process.pid, part.stop_signal)
        return process

    async def _watch(self, part: Part, process: asyncio.subprocess.Process) -> None:
        """Restart a part that ends: at once the first time, slower if it keeps ending."""
        falls = 0
        while True:
            began = time.monotonic()
            code = await process.wait()
            if self._stopping.is_set():
                return
            falls = 0 if time.monotonic() - began > CALM_SECONDS else falls
            pause = RESTART_SECONDS[min(falls, len(RESTART_SECONDS) - 1)]
            falls += 1
            self._say(f"{part.name} {_ended(code)}: restarting" + (f" in {pause:.0f} s" if pause > 1 else ""), None)
            if await _within(pause, self._stopping):
                return
            process = await self._again(part)

    async def _again(self, part: Part) -> asyncio.subprocess.Process:
        began = time.monotonic()
        process = await self._spawn(part)
        self._changed()
        try:
            await self._until_ready(part, process, began)
        except PartFailed:
            return process  # it is watched on: an ended one starts once more, a slow one may still come
        if not self._stopping.is_set():
            self._say(f"{part.name} is back", round(time.monotonic() - began, 2))
        return process

    async def stop(self) -> None:
        """Stop all parts, those that need others first; by force where a part does not end in time."""
        self._stopping.set()
        await asyncio.gather(*self._spawning, return_exceptions=True)
        left = dict(self._parts)
        while left:
            needed = {other for part in left.values() for other in (*part.needs, *part.uses)}
            wave = [part for part in left.values() if part.name not in needed] or list(left.values())
            await asyncio.gather(*(self._end(part) for part in wave))
            for part in wave:
                del left[part.name]
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    def hurry(self) -> None:
        """Stop what is still stopping by force: the second Ctrl-C."""
        self._hurry.set()

    async def _end(self, part: Part) -> None:
        process = self._processes.get(part.name)
        if process is not None and process.returncode is None:
            _send(process, part.stop_signal)
            ending = asyncio.create_task(process.wait())
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait({ending, hurry}, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not ending.done():
                self._say(f"{part.name} did not end: stopping it by force", None)
                _send(process, signal.SIGKILL)
            await ending
        self._records.forget(part.name)

    def _rotate(self, part: Part) -> None:
        """Begin a new log; the one of the run before stays beside it."""
        log = self._logs / f"{part.name}.log"
        if log.exists() and log.stat().st_size:
            log.replace(log.with_suffix(".log.1"))

    def _tail(self, part: Part) -> str:
        file = self._logs / f"{part.name}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
        process.send_signal(number)


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait, and tell whether the event came meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
