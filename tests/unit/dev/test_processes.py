"""Processes by number: only the very one that was noted is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.paths import StackRefused
from dev.processes import Records, interrupted, start_ticks, tethered, working_in


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process of our own that does nothing."""
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as process:
        yield process
        process.kill()


def test_a_process_of_an_earlier_run_is_ended_and_told(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    records, told = Records(tmp_path / "run"), list[str]()
    records.write("payments", sleeper.pid, signal.SIGTERM)
    records.end_leftovers(told.append)
    assert sleeper.wait(5) == -signal.SIGTERM
    assert told == [f"payments of an earlier run still runs (pid {sleeper.pid}): ending it"]
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}, {"started": None}])
def test_a_stranger_with_the_same_number_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    records, told = Records(tmp_path / "run"), list[str]()
    records.write("payments", sleeper.pid, signal.SIGTERM)
    file = tmp_path / "run" / "payments.pid"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    records.end_leftovers(told.append)
    assert sleeper.poll() is None
    assert told == []
    assert not file.exists()


def test_a_half_written_note_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "payments.pid").write_text('{"pid": 1')
    Records(tmp_path).end_leftovers(pytest.fail)
    assert not (tmp_path / "payments.pid").exists()


def test_who_works_in_a_folder_is_found(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    assert working_in(tmp_path) == [sleeper.pid]


def test_an_ended_process_has_no_start(sleeper: subprocess.Popen[bytes]) -> None:
    assert start_ticks(sleeper.pid) is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(sleeper.pid) is None, "its remains do not count"


def test_this_process_is_not_interrupted() -> None:
    assert not interrupted(os.getpid())


def test_a_machine_without_setpriv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackRefused, match="util-linux"):
        tethered(["true"], signal.SIGKILL)
