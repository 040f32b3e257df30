"""The inbox of the running stack."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx

from tests.support.stack import PATIENCE_SECONDS, Platform


def mails_to(platform: Platform, address: str) -> list[dict[str, str]]:
    """Return the mails to an address, newest first."""
    url = f"http://127.0.0.1:{platform.state['ports']['mail_inbox']}/mails.json"
    found: list[dict[str, str]] = httpx.get(url, params={"to": address}).raise_for_status().json()
    return found


def mail_to(platform: Platform, address: str, subject: str, *, after: int = 0) -> dict[str, str]:
    """Wait for a mail with a subject; `after` skips that many older ones."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = [mail for mail in mails_to(platform, address) if subject in mail["subject"]]
        if len(found) > after:
            return found[0]
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"no mail {subject!r} to {address}: {[m['subject'] for m in mails_to(platform, address)]}"
            )
        time.sleep(0.1)


def token_of(mail: dict[str, str]) -> str:
    """Return the token in a mail."""
    found = re.search(r"pm_et_[\w-]+", mail["text"])
    assert found is not None, mail["text"]
    return found[0]


def reply_with(platform: Platform, reply: str, times: int) -> None:
    """Have the mail server answer the next mails in another way."""
    url = f"http://127.0.0.1:{platform.state['ports']['mail_inbox']}/_sandbox/replies"
    body: dict[str, Any] = {"reply": reply, "times": times}
    httpx.post(url, json=body).raise_for_status()
