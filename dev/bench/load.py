"""Load: so many in flight for so long, with rates, latencies and the client's CPU."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    operations: int
    per_second: float
    p50_ms: float
    p99_ms: float
    client_cpu_us: float

    def as_json(self) -> dict[str, float]:
        """Return it, rounded for reading."""
        return {
            "per_second": round(self.per_second),
            "p50_ms": round(self.p50_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
            "client_cpu_us_per_op": round(self.client_cpu_us),
        }


async def measure(one: Callable[[], Awaitable[Any]], *, in_flight: int, seconds: float) -> Figure:
    """Call `one` from so many tasks for so long."""
    took: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    end = began + seconds

    async def caller() -> None:
        while (at := time.perf_counter()) < end:
            await one()
            took.append(time.perf_counter() - at)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    elapsed = time.perf_counter() - began
    ordered = sorted(took)
    return Figure(
        operations=len(took),
        per_second=len(took) / elapsed,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
        client_cpu_us=(time.process_time() - cpu) / len(took) * 1e6,
    )


def middle(figures: Sequence[Figure]) -> Figure:
    """Return the figure in the middle by rate."""
    return sorted(figures, key=lambda figure: figure.per_second)[len(figures) // 2]


def verdict(
    *,
    rounds: Sequence[float],
    aim: float,
    must: float,
    absolute: dict[str, Any],
    cpu_us_per_op: float | None,
    green: bool,
    lower_is_better: bool = False,
) -> dict[str, Any]:
    """Return a benchmark's result; without green books there is no value."""
    value = round(statistics.median(rounds), 3)
    met = value <= must if lower_is_better else value >= must
    return {
        "value": value if green else None,
        "aim": aim,
        "must": must,
        "met": met,
        "rounds": [round(one, 3) for one in rounds],
        "absolute": absolute,
        "cpu_us_per_op": round(cpu_us_per_op) if cpu_us_per_op is not None else None,
        "audit": "green" if green else "RED",
    }
