"""`python -m dev.bench.noop <port> <tls folder>`: a gRPC server that does nothing, with the same TLS as ours: the baseline."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop


async def serve(port: int, folder: Path) -> None:
    """Answer every call with nothing, until killed."""

    async def nothing(_: bytes, __: Any) -> bytes:
        return b""

    handler: Any = grpc.unary_unary_rpc_method_handler(nothing)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Noop", {"Call": handler})])
    key, certificate, ca = ((folder / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    credentials = grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
