"""How the command line reaches the servers: over mTLS, as the "operator" of the mesh. Whoever can read its key may do what it
does, so the key stays on the machine.

From the local stack, or from PAYMESH_OPERATOR_TLS_DIR (ca.crt, tls.crt, tls.key) and PAYMESH_OPERATOR_PEERS (JSON: a domain to
its address).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import typer
from paymesh_client.errors import error_of

SECONDS = 30.0
TLS_DIR, PEERS = "PAYMESH_OPERATOR_TLS_DIR", "PAYMESH_OPERATOR_PEERS"


def place_of(domain: str) -> tuple[str, Path]:
    """Return a server's address and the folder of the operator's certificate. Raises NoStack."""
    from paymesh_cli.main import default_folder, state_of

    if TLS_DIR in os.environ and PEERS in os.environ:
        peers: dict[str, str] = json.loads(os.environ[PEERS])
        return peers[domain], Path(os.environ[TLS_DIR])
    folder = default_folder()
    ports = state_of(folder)["ports"]
    assert isinstance(ports, dict)
    return f"127.0.0.1:{ports[domain]}", folder / "tls" / "operator"


@contextlib.contextmanager
def channel_to(domain: str) -> Iterator[grpc.Channel]:
    """Yield a channel to a server; what it refuses is said, and ends the command with 1."""
    from paymesh_cli.main import NoStack

    try:
        address, folder = place_of(domain)
        files = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    except (NoStack, OSError) as refusal:
        print(refusal, file=sys.stderr)
        raise typer.Exit(2) from refusal
    options = (("grpc.ssl_target_name_override", f"{domain}.paymesh.internal"),)
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options=options) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            told = error_of(error.code(), error.details() or "", error.trailing_metadata() or (), "")
            print(told, file=sys.stderr)
            raise typer.Exit(1) from error
