"""Whether a part is ready, asked of the part itself. A probe never uses a proxy: everything it asks is on this machine."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dev.paths import DOMAINS

ANSWER_SECONDS = 1.0


async def listens(port: int) -> bool:
    """Tell whether anything listens: much cheaper to ask again and again than TLS."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def fetch(url: str, verify: ssl.SSLContext) -> str | None:
    """Return the body of a 200 answer, else None."""
    async with httpx.AsyncClient(verify=verify, timeout=ANSWER_SECONDS, trust_env=False) as client:
        try:
            answer = await client.get(url)
        except httpx.HTTPError:
            return None
    return answer.text if answer.status_code == 200 else None


async def serving(domain: str, port: int, credentials: Path) -> bool:
    """Ask a server for its health over mTLS, with the certificate in a folder."""
    if not await listens(port):
        return False
    files = (credentials / name for name in ("ca.crt", "tls.key", "tls.crt"))
    channel_credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    options = [("grpc.ssl_target_name_override", f"{domain}.paymesh.internal"), ("grpc.enable_retries", 0)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", channel_credentials, options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # its stubs lack the methods
                health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def edge_serves(edge_url: str, admin_port: int, verify: ssl.SSLContext) -> bool:
    """Tell whether Envoy is ready, knows the keys of access tokens and has found every server healthy: before that it answers
    401 and 503."""
    admin = f"http://127.0.0.1:{admin_port}"
    if not await listens(admin_port) or await fetch(f"{admin}/ready", verify) is None:
        return False
    keys = await fetch(f"{admin}/stats?filter=jwks_fetch_success$", verify)
    if keys is None or not any(line.split(": ")[-1] not in ("0", "") for line in keys.splitlines()):
        return False
    clusters = await fetch(f"{admin}/clusters", verify) or ""
    flags = [line for line in clusters.splitlines() if "::health_flags::" in line and line.split("::")[0] in DOMAINS]
    healthy = len(flags) == len(DOMAINS) and all(line.endswith("::healthy") for line in flags)
    return healthy and await fetch(f"{edge_url}/healthz", verify) is not None
