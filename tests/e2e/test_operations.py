"""What whoever runs the platform counts on: traces that hold together, logs without secrets, quick starts, limits."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import uuid
from pathlib import Path

from dev.paths import ROOT
from tests.support.stack import Shop, wait_for

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
    # Over what the libraries alone take to import here: seconds say more of the machine than of the server.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import grpc.aio, sqlalchemy.ext.asyncio, psycopg, stripe"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    bare = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert max(shop.platform.cpu_seconds.values()) <= 3 * bare, (shop.platform.cpu_seconds, bare)


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
