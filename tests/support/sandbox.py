"""A Stripe sandbox of the session's own, and its switches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import stripe

from dev.paths import ROOT
from tests.support.ports import free_port

KEY: Final = "sk_test_sandbox"
SECRET: Final = "whsec_sandbox"


class SandboxProcess:
    """A sandbox that can be killed and started again."""

    def __init__(self, folder: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            "PATH": os.environ["PATH"],
            "STRIPE_SANDBOX_PORT": str(self.port),
            "STRIPE_SANDBOX_DATA_DIR": folder,
            "STRIPE_SANDBOX_API_KEY": KEY,
            "STRIPE_SANDBOX_WEBHOOK_SECRET": SECRET,
        }
        self.start()

    def start(self, **env: str) -> None:
        """Start, and wait until it answers."""
        self.process = subprocess.Popen([sys.executable, "-m", "sandbox.stripe"], cwd=ROOT, env=self._env | env)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/_sandbox/healthz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError("the sandbox did not start")

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def switch(self, path: str, /, **body: Any) -> Any:
        """Use a switch of `/_sandbox/`."""
        return httpx.post(f"{self.url}/_sandbox/{path}", json=body).raise_for_status().json()

    def stats(self) -> Any:
        """Return what was counted."""
        return httpx.get(f"{self.url}/_sandbox/stats").raise_for_status().json()

    def client(self) -> stripe.StripeClient:
        """Return the unmodified SDK, pointed here."""
        return stripe.StripeClient(
            KEY,
            base_addresses={"api": self.url},
            http_client=stripe.HTTPXClient(timeout=5, allow_sync_methods=False),
            max_network_retries=0,
        )


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """Start the sandbox."""
    process = SandboxProcess(str(tmp_path_factory.mktemp("sandbox")))
    yield process
    process.kill()
