"""What whoever runs the platform counts on: traces that hold together, logs without secrets, quick starts, limits."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Final

import pytest

from dev.paths import DOMAINS, ROOT
from tests.support.stack import Shop, wait_for

START_SECONDS: Final = 1.6
USUAL_BARE_SECONDS: Final = 0.46
"""What the bare imports take where START_SECONDS is the bound."""
SECRETS = re.compile(
    r"correct horse|pm_rt_\w|pm_sk_test_\w{8}|whsec_\w{8}|eyJ[\w-]{8}|sk_test_[0-9a-f]{8}|@example\.com|\b4242424242424242\b"
)


def test_one_trace_spans_the_confirm_the_event_and_the_ledger(shop: Shop) -> None:
    payment = shop.payment()
    shop.ok(shop.confirm(payment["id"]))

    def spanned() -> bool:
        by_trace: dict[str, set[tuple[str, str]]] = {}
        for trace, service, name in shop.platform.collector.spans:
            by_trace.setdefault(trace, set()).add((service, name))
        confirm = ("paymesh-payments", "paymesh.payments.v1.PaymentService/ConfirmPayment")
        consumed = ("paymesh-wallets", "consume payment.succeeded")
        return any({confirm, consumed} <= spans for spans in by_trace.values())

    wait_for(spanned, "the exported spans")


def test_a_server_starts_on_little_processor_time(shop: Shop) -> None:
    # The bound is for a machine on which the bare imports take what they do on ours; on a slower one it grows with them.
    slower = max(1.0, bare_imports() / USUAL_BARE_SECONDS)
    assert max(shop.platform.cpu_seconds.values()) <= START_SECONDS * slower, (shop.platform.cpu_seconds, slower)


def bare_imports() -> float:
    """Return the CPU seconds that the libraries alone take to import, as many at once as servers start at once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "import grpc.aio, sqlalchemy.ext.asyncio, psycopg, stripe"]
    started = [subprocess.Popen(command) for _ in DOMAINS]
    assert [process.wait(60) for process in started] == [0] * len(DOMAINS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(DOMAINS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_server_imports_only_what_it_uses(domain: str) -> None:
    program = f"import sys, servers.{domain}.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"alembic", "kafka", "pytest", "dev", "sandbox", "clients"})
    assert ("stripe" in loaded, "aiohttp" in loaded) == (domain == "payments", domain == "payments")


def test_no_log_holds_a_secret(shop: Shop) -> None:
    shop.call("POST", "/v1/sessions", {"email": "nobody@example.com", "password": "correct horse 4242424242424242"})
    shop.call("POST", "/v1/payments", {"description": "card 4242424242424242"}, token=shop.seller_token)
    logs = list(Path(shop.platform.state["logs_dir"]).glob("*.log"))
    assert {"identity.log", "payments.log", "wallets.log", "envoy.log"} <= {log.name for log in logs}
    for log in logs:
        found = [line for line in log.read_text().splitlines() if SECRETS.search(line)]
        assert found == [], log.name


def test_guessing_one_accounts_password_is_slowed_down_and_told_how_long(shop: Shop) -> None:
    guess = {"email": f"{uuid.uuid4().hex}@example.com", "password": "wrong wrong wrong"}
    codes = [shop.call("POST", "/v1/sessions", guess).status_code for _ in range(10)]
    assert set(codes) == {401}
    refused = shop.call("POST", "/v1/sessions", guess)
    assert refused.status_code == 429
    reason, retry = refused.json()["details"]
    assert (reason["reason"], reason["metadata"]["limit"]) == ("RATE_LIMITED", "logins_of_account")
    assert 0 < float(retry["retry_delay"].rstrip("s")) <= 90


def test_the_command_line_buys_something_and_says_what_runs(shop: Shop) -> None:
    toured = shop.platform.cli("tour")
    assert toured.returncode == 0, toured.stderr
    assert toured.stdout.count("\ncurl ") >= 16
    assert "pending 3385" in toured.stdout
    assert "balance 1500, held 0, available 1500, pending 0" in toured.stdout
    # What it prints works as it is pasted; a repeat gets the first answer.
    lines = [line for line in toured.stdout.splitlines() if line.startswith((".venv/bin/buf curl ", "curl "))]
    for line in lines:
        pasted = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (pasted.returncode, '"details"' in pasted.stdout) == (0, False), (line, pasted.stdout, pasted.stderr)
    told = shop.platform.cli("doctor").stdout
    for part in ("identity", "payments", "wallets", "notifications", "envoy", "postgres", "valkey", "mail"):
        assert part in told
    absent = subprocess.run(
        [str(Path(sys.executable).parent / "paymesh"), "tour"],
        env={"PATH": os.environ["PATH"], "PAYMESH_DATA_DIR": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (absent.returncode, "make up" in absent.stderr) == (2, True)
