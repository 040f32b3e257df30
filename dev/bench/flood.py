"""P15: what a flood of logins does to a transfer. Passwords are hashed by one worker behind a short queue, so it should
do little."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import uuid
from typing import Any, Final

import httpx

from dev.bench.load import Figure, measure, middle, verdict
from dev.bench.platform import Bench, running
from dev.bench.transfers import poster

IN_FLIGHT: Final = 8
LOGINS: Final = 16
ROUNDS: Final = 5
SECONDS: Final = 3.0


async def _login_for_ever(client: httpx.AsyncClient) -> None:
    while True:
        body = {"email": f"{uuid.uuid4().hex}@example.com", "password": "wrong wrong wrong"}
        with contextlib.suppress(httpx.HTTPError):
            answer = await client.post("/v1/sessions", json=body)
            if answer.status_code == 429:
                await asyncio.sleep(0.2)


async def _rounds(bench: Bench) -> tuple[list[Figure], list[Figure]]:
    post = await poster(bench)
    await measure(post, in_flight=IN_FLIGHT, seconds=1.0)
    context = ssl.create_default_context(cafile=bench.state["ca_file"])
    quiet: list[Figure] = []
    flooded: list[Figure] = []
    async with httpx.AsyncClient(
        base_url=bench.state["edge_url"], verify=context, timeout=20, trust_env=False
    ) as client:
        for _ in range(ROUNDS):
            quiet.append(await measure(post, in_flight=IN_FLIGHT, seconds=SECONDS))
            flood = [asyncio.create_task(_login_for_ever(client)) for _ in range(LOGINS)]
            await asyncio.sleep(0.5)
            flooded.append(await measure(post, in_flight=IN_FLIGHT, seconds=SECONDS))
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
            await asyncio.sleep(1.0)
    return quiet, flooded


def run() -> dict[str, Any]:
    """Measure in turn."""
    with running() as bench:
        quiet, flooded = asyncio.run(_rounds(bench))
        green = bench.audit()
    ratios = [busy.p99_ms / calm.p99_ms for busy, calm in zip(flooded, quiet, strict=True)]
    absolute = {"quiet": middle(quiet).as_json(), "flooded": middle(flooded).as_json()}
    return verdict(
        rounds=ratios, aim=1.3, must=2.0, absolute=absolute, cpu_us_per_op=None, green=green, lower_is_better=True
    )
