"""A real Valkey for the session."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from dev.valkey import EmbeddedValkey
from tests.support.ports import free_port


class ValkeyProcess:
    """A server that can be stopped."""

    def __init__(self, embedded: EmbeddedValkey) -> None:
        self.url = embedded.url()
        self._process = subprocess.Popen(embedded.command(), stdout=subprocess.DEVNULL)
        with redis.Redis.from_url(self.url) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """Start Valkey."""
    process = ValkeyProcess(EmbeddedValkey(tmp_path_factory.mktemp("valkey"), port=free_port(), password="test-only"))
    yield process
    process.stop()
