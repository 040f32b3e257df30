"""The supervisor with small programs of our own: order, restarts, logs, and no process left behind whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dev.paths import ROOT
from dev.processes import Records, start_ticks
from dev.supervisor import Part, PartFailed, Supervisor

PROGRAM = """
import pathlib, signal, sys, time
name, folder, stubborn = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == "stubborn"
def end(*_):
    with (folder / "ends").open("a") as file: file.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else end)
print(name, "runs", flush=True)
with (folder / "starts").open("a") as file: file.write(name + "\\n")
(folder / name).touch()
time.sleep(60)
"""
PATIENCE = 8.0


class Yard:
    """A folder in which parts run and leave traces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.changes = 0

    def part(self, name: str, *, needs: tuple[str, ...] = (), uses: tuple[str, ...] = (), how: str = "") -> Part:
        """Return a part that is ready once it has touched a file of its name."""
        words = (sys.executable, "-S", "-c", PROGRAM, name, self.folder, how)

        async def ready() -> bool:
            return (self.folder / name).exists()

        return Part(name=name, command=lambda: words, ready=ready, needs=needs, uses=uses)

    def supervisor(self, *parts: Part) -> Supervisor:
        """Return a supervisor of the parts."""
        return Supervisor(
            parts,
            logs=self.folder / "logs",
            records=Records(self.folder / "run"),
            say=lambda text, _seconds: self.said.append(text),
            cwd=self.folder,
            changed=self._count,
        )

    def lines(self, name: str) -> list[str]:
        """Return what the programs wrote down."""
        return (self.folder / name).read_text().split()

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """Give a test its yard."""
    return Yard(tmp_path)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, within a bound."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


def gone(pids: Sequence[int]) -> bool:
    """Tell whether none of the processes runs."""
    return all(start_ticks(pid) is None for pid in pids)


async def test_parts_start_after_what_they_need_and_stop_before_it(yard: Yard) -> None:
    parts = (
        yard.part("edge", needs=("server",)),
        yard.part("server", needs=("base",), uses=("aid",)),
        yard.part("base"),
    )
    supervisor = yard.supervisor(*parts, yard.part("aid"))
    await supervisor.start()
    pids = list(supervisor.pids.values())
    assert [name for name in yard.lines("starts") if name != "aid"] == ["base", "server", "edge"]
    assert set(supervisor.seconds) == {"base", "server", "edge", "aid"}
    assert len(list((yard.folder / "run").glob("*.pid"))) == 4
    await supervisor.stop()
    assert yard.lines("ends")[:2] == ["edge", "server"]
    assert sorted(yard.lines("ends")[2:]) == ["aid", "base"]
    assert gone(pids)
    assert not list((yard.folder / "run").iterdir())


async def test_a_killed_part_is_back_soon_and_its_new_number_is_told(yard: Yard) -> None:
    supervisor = yard.supervisor(yard.part("server"))
    await supervisor.start()
    before = supervisor.pids["server"]
    (yard.folder / "server").unlink()
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    await until(lambda: "server is back" in yard.said)
    assert time.monotonic() - began < 2
    assert supervisor.pids["server"] != before
    assert yard.said == ["server", "server was ended by SIGKILL: restarting", "server is back"]
    assert yard.changes == 1
    await supervisor.stop()


async def test_a_part_that_keeps_ending_is_restarted_more_slowly(yard: Yard) -> None:
    supervisor = yard.supervisor(yard.part("server"))
    await supervisor.start()
    for rounds in (1, 2):
        os.kill(supervisor.pids["server"], signal.SIGKILL)
        while yard.said.count("server is back") < rounds:
            await asyncio.sleep(0.02)
    os.kill(supervisor.pids["server"], signal.SIGKILL)
    await until(lambda: "server was ended by SIGKILL: restarting in 2 s" in yard.said)
    await supervisor.stop()
    assert supervisor.pids == {}


async def test_a_part_that_ends_before_it_is_ready_stops_the_start_and_shows_its_log(yard: Yard) -> None:
    async def never() -> bool:
        return False

    words = (sys.executable, "-c", "import sys; sys.exit('the roof is missing')")
    broken = Part(name="house", command=lambda: words, ready=never)
    supervisor = yard.supervisor(broken, yard.part("base"))
    with pytest.raises(ExceptionGroup) as group:
        await supervisor.start()
    await supervisor.stop()
    failure = group.value.exceptions[0]
    assert isinstance(failure, PartFailed)
    assert "house ended with code 1" in str(failure)
    assert "the roof is missing" in str(failure)
    assert supervisor.pids == {}


async def test_a_start_that_is_cancelled_leaves_no_process(yard: Yard) -> None:
    supervisor = yard.supervisor(yard.part("server"), yard.part("late", needs=("server",)))
    starting = asyncio.create_task(supervisor.start())
    await until(lambda: bool(supervisor.pids))
    starting.cancel()
    pids = list(supervisor.pids.values())
    await supervisor.stop()
    assert gone(pids)
    assert supervisor.pids == {}


async def test_a_part_that_does_not_end_is_ended_by_force_when_the_user_hurries(yard: Yard) -> None:
    supervisor = yard.supervisor(yard.part("mule", how="stubborn"))
    await supervisor.start()
    pids = list(supervisor.pids.values())
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.3)
    assert not stopping.done()
    supervisor.hurry()
    async with asyncio.timeout(2):
        await stopping
    assert gone(pids)
    assert "mule did not end: stopping it by force" in yard.said


async def test_the_log_of_the_run_before_stays_beside_the_new_one(yard: Yard) -> None:
    for _ in range(2):
        supervisor = yard.supervisor(yard.part("server"))
        await supervisor.start()
        await supervisor.stop()
        (yard.folder / "server").unlink()
    assert (yard.folder / "logs" / "server.log").read_text() == "server runs\n"
    assert (yard.folder / "logs" / "server.log.1").read_text() == "server runs\n"


SUPERVISED = """
import asyncio, json, pathlib, sys
from tests.integration.dev.test_supervisor import Yard
async def main():
    yard = Yard(pathlib.Path(sys.argv[1]))
    supervisor = yard.supervisor(yard.part("server", how="stubborn"), yard.part("base"))
    await supervisor.start()
    print(json.dumps(supervisor.pids), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    words = (sys.executable, "-c", SUPERVISED, str(tmp_path))
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    pids = list(json.loads(await process.stdout.readline()).values())
    assert len(pids) == 2
    assert not gone(pids)
    process.kill()
    await process.wait()
    await until(lambda: gone(pids))
