"""The bootstrap: what a machine lacks is said with its remedy, and an unchanged lock costs nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dev import bootstrap
from dev.bootstrap import BootstrapFailed


def test_an_old_python_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(BootstrapFailed, match=r"Python 3\.9\.2, 3\.11 or newer is needed.*PYTHON="):
        bootstrap.check_machine()


def test_a_python_without_venv_is_refused_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(BootstrapFailed, match=r"apt-get install python3\.\d+-venv"):
        bootstrap.check_machine()


def test_a_step_that_fails_shows_its_own_words() -> None:
    with pytest.raises(BootstrapFailed, match="no such lock"):
        bootstrap.step("installing", sys.executable, "-c", "import sys; sys.exit('no such lock')")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the bootstrap a project of its own; return the titles of the steps that it takes."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / ".venv").mkdir()
    for name in ("requirements/bootstrap.lock", "requirements/local.lock", "requirements/dev.lock", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "BOOTSTRAP", tmp_path / "requirements" / "bootstrap.lock")
    taken: list[str] = []
    monkeypatch.setattr(bootstrap, "step", lambda title, *_command: taken.append(title))
    return taken


def test_only_a_changed_lock_is_installed_again(steps: list[str]) -> None:
    bootstrap.install("local")
    assert steps == ["installing requirements/local.lock", "installing Paymesh itself"]
    bootstrap.install("local")
    assert len(steps) == 2
    lock = bootstrap.ROOT / "requirements" / "local.lock"
    text = lock.read_text()
    lock.write_text("newer")
    bootstrap.install("local")
    lock.write_text(text)
    bootstrap.install("local")
    assert len(steps) == 6, "a lock that came back is installed, whatever its date"


def test_installing_one_lock_forgets_the_other(steps: list[str]) -> None:
    for group in ("local", "dev", "local"):
        bootstrap.install(group)
    assert len(steps) == 6
