"""Two sets of tests at the same time: both are told of, and none outlives the other's failure or a Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev import test as dev_test
from dev.paths import ROOT

QUICK = "def test_quick():\n    pass\n"
BAD = "def test_bad():\n    assert not 'well'\n"
SLOW = """
import pathlib, time

def test_slow():
    here = pathlib.Path(__file__)
    here.with_name("began").touch()
    try:
        time.sleep(120)
    finally:
        here.with_name("cleaned").touch()
"""


def written(folder: Path, body: str) -> tuple[str, ...]:
    """Write a module of tests."""
    folder.mkdir()
    file = folder / "test_it.py"
    file.write_text(body)
    return (str(file),)


@pytest.mark.parametrize(("shown", "kept", "code"), [(QUICK, QUICK, 0), (QUICK, BAD, 1)])
def test_the_second_set_is_told_of_and_counts(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], shown: str, kept: str, code: int
) -> None:
    assert dev_test._side_by_side(written(tmp_path / "a", shown), written(tmp_path / "b", kept)) == code
    told = capfdbinary.readouterr().out
    assert told.count(b" passed in ") == (2 if code == 0 else 1)
    assert told.count(b"1 failed in ") == code


def test_where_the_first_set_fails_the_second_is_stopped(tmp_path: Path) -> None:
    began = time.monotonic()
    assert dev_test._side_by_side(written(tmp_path / "a", BAD), written(tmp_path / "b", SLOW)) == 1
    assert time.monotonic() - began < 60


def test_an_interrupt_stops_both_and_lets_them_clean_up(tmp_path: Path) -> None:
    [first], [second] = written(tmp_path / "a", SLOW), written(tmp_path / "b", SLOW)
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's is ignored
        f"from dev.test import _side_by_side; _side_by_side(({first!r},), ({second!r},))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / name / "began").exists() for name in "ab"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.wait(60)
    assert all((tmp_path / name / "cleaned").exists() for name in "ab")
