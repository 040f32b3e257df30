"""A whole platform for a benchmark: durable, on ports of its own, in a folder that goes away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import grpc

from dev.paths import ROOT, Ports

READY_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Bench:
    """A running platform."""

    folder: Path
    state: dict[str, Any]
    env: dict[str, str]

    def port(self, name: str) -> int:
        """Return a port by its name."""
        return int(self.state["ports"][name])

    def credentials(self, peer: str) -> grpc.ChannelCredentials:
        """Return the mTLS credentials of a server."""
        files = (self.folder / "tls" / peer / name for name in ("ca.crt", "tls.key", "tls.crt"))
        return grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))

    def channel(self, domain: str, *, peer: str, port: int | None = None) -> grpc.aio.Channel:
        """Return a channel to a server, in the name of another."""
        options = [("grpc.ssl_target_name_override", f"{domain}.paymesh.internal")]
        return grpc.aio.secure_channel(
            f"127.0.0.1:{port or self.port(domain)}", self.credentials(peer), options=options
        )

    def cpu_seconds(self, name: str) -> float:
        """Return what a part has used of the processor so far, its living children (Postgres' sessions) included."""
        root = str(self.state["pids"][name])
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended since
            if root in (file.parent.name, fields[1]):
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def audit(self) -> bool:
        """Prove the books."""
        command = [str(Path(sys.executable).parent / "paymesh"), "audit"]
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, file=sys.stderr)
        return done.returncode == 0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running() -> Iterator[Bench]:
    """Start a platform, and stop it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        ports = {f"PAYMESH_PORT_{field.name.upper()}": str(free_port()) for field in fields(Ports)}
        env = {"PATH": os.environ["PATH"], "PAYMESH_DATA_DIR": scratch, "PAYMESH_LOG_LEVEL": "warning", **ports}
        env["PAYMESH_EDGE_LIMITS"] = "none"
        # As in production: what is local otherwise is for impatient tests.
        env["PAYMESH_RECONCILE_EVERY_SECONDS"] = "60"
        command = [sys.executable, "-m", "dev.up", "--no-tour"]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not (folder / "up.json").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError("the platform did not start; try `make up`")
                time.sleep(0.05)
            yield Bench(folder, json.loads((folder / "up.json").read_text()), env)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
