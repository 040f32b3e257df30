"""The local stack's own rules: file modes, settings, ports, addresses, one stack per folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dev.clean import clean_data
from dev.lock import Lock
from dev.paths import Ports, StackRefused
from dev.secrets import SecretFolder
from dev.stack import check_ports, make_stack

EXTERNAL = "postgresql://boss:s%40fe@db.example:6432/postgres?sslmode=require"


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "STRIPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path / "made")
    first = folder.password("a")
    assert SecretFolder(tmp_path / "made").password("a") == first
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "made" / "a").stat().st_mode & 0o777 == 0o600


def test_nobody_else_reads_a_private_file_of_the_stack(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, Ports())
    for folder in ("private", "tls"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700
        files = [path for path in (tmp_path / folder).rglob("*") if path.is_file() and not path.is_symlink()]
        assert files
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert stack.ca_file.parent == tmp_path, "the edge's public certificate lies outside of what is private"
    assert b"PRIVATE" not in stack.ca_file.read_bytes()


def test_busy_ports_are_refused_all_at_once_by_name_and_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as one, socket.socket() as other:
        for busy, setting in ((one, "PAYMESH_PORT_EDGE"), (other, "PAYMESH_PORT_REDIS")):
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            monkeypatch.setenv(setting, str(busy.getsockname()[1]))
        with pytest.raises(StackRefused) as refusal:
            check_ports(make_stack(tmp_path, Ports.load()))
        assert f"port {one.getsockname()[1]} (edge) is in use" in str(refusal.value)
        assert f"port {other.getsockname()[1]} (redis) is in use" in str(refusal.value)
        assert "PAYMESH_PORT_EDGE" in str(refusal.value)


def test_the_port_of_a_part_that_is_not_started_may_be_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        monkeypatch.setenv("PAYMESH_PORT_POSTGRES", str(busy.getsockname()[1]))
        monkeypatch.setenv("DATABASE_URL", EXTERNAL)
        try:
            check_ports(make_stack(tmp_path, Ports.load()))
        except StackRefused as refusal:
            assert "PAYMESH_PORT_POSTGRES" not in str(refusal)  # noqa: PT017  # another stack may run on the other ports


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYMESH_PORT_EGDE", "1"),
        ("PAYMESH_PORT_EDGE", "x"),
        ("PAYMESH_PORT_EDGE", "0"),
        ("PAYMESH_PORT_EDGE", "65536"),
        ("PAYMESH_PORT_EDGE", "²"),
        ("PAYMESH_PORT_EDGE", "9001"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StackRefused, match=name):
        Ports.load()


def test_an_external_database_keeps_its_options_and_loses_its_administrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", EXTERNAL)
    stack = make_stack(tmp_path, Ports())
    url = stack.database_url("wallets", "wallets")
    assert url.startswith("postgresql://paymesh_wallets:")
    assert url.endswith("@db.example:6432/wallets?sslmode=require")
    assert "boss" not in url
    assert stack.database_address() == "db.example:6432"


def test_a_live_stripe_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_never")
    with pytest.raises(StackRefused, match="live key"):
        make_stack(tmp_path, Ports())


def test_a_second_stack_in_the_same_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    with pytest.raises(StackRefused, match="is running"):
        Lock(tmp_path)
    with pytest.raises(StackRefused, match="is running"):
        clean_data(tmp_path)
    first.release()
    Lock(tmp_path).release()


def test_clean_removes_the_stack_and_leaves_what_a_user_put_beside_it(tmp_path: Path) -> None:
    make_stack(tmp_path, Ports())
    (tmp_path / "thesis.txt").write_text("mine")
    clean_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
