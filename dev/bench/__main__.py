"""`make bench`, `make bench ONLY=P3,P9`: measures, and writes `build/bench.json`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from dev.bench import edge, flood, payments, start, transfers, writer
from dev.paths import ROOT

Bench = Callable[[], dict[str, Any]]
BENCHES: Final[dict[str, tuple[str, Bench]]] = {
    "WRITER": ("transfers through the ledger's writer, in its own process, over single-row commits", writer.run),
    "P3": ("unary transfer over gRPC with mTLS on one hot account, 64 in flight, over a no-op RPC", transfers.run),
    "P9": ("REST through Envoy over the same call direct over gRPC", edge.run),
    "P10": (
        "what we add to a payment at 50/s, over two durable transactions and two bare calls to Stripe",
        payments.run,
    ),
    "P15": ("p99 of a transfer during a login flood over p99 without it", flood.run),
    "P17": ("seconds from `make up` to the first captured payment, warm", start.run),
}


def main() -> int:
    """Run what ONLY names, or all. Returns 1 where books do not hold or a figure misses what it must be."""
    asked = [name.strip() for name in os.environ.get("ONLY", "").split(",") if name.strip()] or list(BENCHES)
    unknown = sorted(set(asked) - set(BENCHES))
    if unknown:
        print(f"ONLY names {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    file = ROOT / "build" / "bench.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    good = True
    for name in asked:
        title, bench = BENCHES[name]
        print(f"{name}: {title}", flush=True)
        result = bench()
        results[name] = result
        good = good and result["audit"] == "green" and result["met"]
        shown = {key: result[key] for key in ("value", "aim", "must", "met", "audit")}
        print(f"  {shown}\n  {result['absolute']}", flush=True)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(results, indent=2))
    print(f"written to {file.relative_to(ROOT)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
