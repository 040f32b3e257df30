"""Starts programs in the order of their needs, watches, restarts and stops them. Knows nothing of payments.

A program dies with the supervisor whatever happens to it: each asks the kernel for a signal at its parent's death.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
RESTART_SECONDS: Final = (0.1, 0.5, 2.0, 5.0)
CALM_SECONDS: Final = 10.0
STOP_SECONDS: Final = 12.0
READY_SECONDS: Final = 45.0
PROBE_SECONDS: Final = 0.05

Probe = Callable[[], Awaitable[bool]]
_libc = ctypes.CDLL(None, use_errno=True)


class PartFailed(Exception):
    """A part ended before it was ready, or never became so."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program of the stack."""

    name: str
    command: Sequence[str | Path]
    ready: Probe
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    once: bool = False
    """Whether the program is to run to its end, like a migration, instead of serving."""
    stop_signal: signal.Signals = signal.SIGTERM


class Supervisor:
    """Runs parts."""

    def __init__(self, parts: Sequence[Part], *, logs: Path, say: Callable[[str, float], None], cwd: Path) -> None:
        self._parts = {part.name: part for part in parts}
        self._logs = logs
        self._say = say
        self._cwd = cwd
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ready = {part.name: asyncio.Event() for part in parts}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self.seconds: dict[str, float] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Return the pid of every running part."""
        return {name: process.pid for name, process in self._processes.items() if process.returncode is None}

    async def start(self) -> None:
        """Start all parts, each as soon as what it needs is ready. Raises PartFailed."""
        self._logs.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as group:
            for part in self._parts.values():
                group.create_task(self._bring_up(part))

    async def _bring_up(self, part: Part) -> None:
        for need in part.needs:
            await self._ready[need].wait()
        began = time.monotonic()
        process = await self._spawn(part)
        if part.once:
            if await process.wait():
                raise PartFailed(f"{part.name} failed:\n{self._tail(part)}")
        else:
            await self._until_ready(part, process, began)
            self._watchers[part.name] = asyncio.create_task(self._watch(part, process))
        self.seconds[part.name] = round(time.monotonic() - began, 2)
        self._say(part.name, self.seconds[part.name])
        self._ready[part.name].set()

    async def _until_ready(self, part: Part, process: asyncio.subprocess.Process, began: float) -> None:
        while not await part.ready():
            if process.returncode is not None:
                raise PartFailed(f"{part.name} ended with code {process.returncode}:\n{self._tail(part)}")
            if time.monotonic() - began > READY_SECONDS:
                raise PartFailed(f"{part.name} was not ready within {READY_SECONDS:.0f} s:\n{self._tail(part)}")
            await asyncio.sleep(PROBE_SECONDS)

    async def _spawn(self, part: Part) -> asyncio.subprocess.Process:
        with (self._logs / f"{part.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(str(word) for word in part.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", **part.env},
                # A session of its own: Ctrl-C reaches the supervisor alone, which stops the parts in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._processes[part.name] = process
        return process

    async def _watch(self, part: Part, process: asyncio.subprocess.Process) -> None:
        """Restart a part that ends, at once the first time, slower if it keeps ending."""
        falls = 0
        while True:
            began = time.monotonic()
            code = await process.wait()
            if self._stopping:
                return
            falls = 0 if time.monotonic() - began > CALM_SECONDS else min(falls + 1, len(RESTART_SECONDS) - 1)
            self._say(f"{part.name} ended with code {code}: restarting", 0.0)
            await asyncio.sleep(RESTART_SECONDS[falls])
            if self._stopping:
                return
            process = await self._spawn(part)

    async def stop(self) -> None:
        """Stop all parts, those that need others first; by force where a part does not end in time."""
        self._stopping = True
        left = dict(self._parts)
        while left:
            needed = {need for part in left.values() for need in part.needs}
            wave = [part for part in left.values() if part.name not in needed] or list(left.values())
            await asyncio.gather(*(self._end(part) for part in wave))
            for part in wave:
                del left[part.name]
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    async def _end(self, part: Part) -> None:
        process = self._processes.get(part.name)
        if process is None or process.returncode is not None:
            return
        process.send_signal(part.stop_signal)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _tail(self, part: Part) -> str:
        file = self._logs / f"{part.name}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-15:])


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
