"""The lines that the tour prints: a shell must read them back as the very call that was made."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import httpx
import pytest

from dev import tour
from dev.paths import ROOT

BODY = {"display_name": 'Ada\'s "Books" $HOME'}
HEADERS = {"authorization": "Bearer abc", "idempotency-key": "1"}


def test_a_curl_line_survives_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tour.PROXIES:
        monkeypatch.delenv(name, raising=False)
    words = shlex.split(tour.curl("https://localhost:1", Path("/a b/ca.crt"), "POST", "/v1/merchants", HEADERS, BODY))
    assert words[:3] == ["curl", "--http1.1", "-sS"]
    assert words[words.index("--cacert") + 1] == "/a b/ca.crt"
    assert words[words.index("-X") + 2] == "https://localhost:1/v1/merchants"
    assert json.loads(words[words.index("-d") + 1]) == BODY
    assert "authorization: Bearer abc" in words


def test_behind_a_proxy_curl_is_told_not_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "--noproxy localhost" in tour.curl("https://localhost:1", Path("ca"), "GET", "/v1/balances", {}, None)


def test_a_buf_line_names_the_schema_and_the_method() -> None:
    rpc = "paymesh.wallets.v1.WalletService/GetBalances"
    words = shlex.split(tour.buf_curl("https://localhost:1", Path("ca"), rpc, HEADERS, None))
    assert words[:2] == [".venv/bin/buf", "curl"]
    assert (ROOT / words[words.index("--schema") + 1]).is_file()
    assert words[-1] == f"https://localhost:1/{rpc}"
    assert words[words.index("-d") + 1] == "{}"


def test_a_refusal_is_told_with_its_reason_its_fields_and_its_request() -> None:
    details = [{"reason": "FIELD_INVALID"}, {"field_violations": [{"field": "amount", "description": "must be more"}]}]
    answer = httpx.Response(
        400, json={"message": "The request is invalid.", "details": details}, headers={"x-request-id": "r1"}
    )
    assert tour.refused(answer) == "400 FIELD_INVALID: The request is invalid.; amount: must be more [request r1]"


def test_an_answer_that_is_none_of_ours_is_told_as_it_is() -> None:
    assert tour.refused(httpx.Response(502, text="Bad gateway")) == "502 Bad gateway"


async def test_a_wrong_port_and_a_missing_authority_are_told_as_such(tmp_path: Path) -> None:
    async with httpx.AsyncClient(base_url="https://localhost:1", trust_env=False) as client:
        with pytest.raises(tour.TourFailed, match="nothing answers at https://localhost:1"):
            await tour.Guide(client, "https://localhost:1", tmp_path).call("Look", "GET", "/v1/users/me")
    with pytest.raises(tour.TourFailed, match="certificate authority cannot be read"):
        await tour.tour("https://localhost:1", tmp_path / "absent.crt")
