"""The limits that docs/api.md tells are those of the edge's configuration and of the servers."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import servers
from dev.edge import BODY_BYTES_MAX, LIMITS, TEMPLATE
from dev.paths import ROOT
from servers.runtime.throttle import Limit

SECTION = (ROOT / "docs/api.md").read_text().partition("\n## Limits\n")[2].partition("\n## ")[0]
OF_THE_EDGE = re.compile(r"^\| ([a-zA-Z ,]+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
OF_THE_SERVERS = re.compile(r"^\| `(\w+)` \| .+ \| (\d+) \| (\d+) s \|$", re.MULTILINE)
BUCKETS = (
    ("all callers together", "all"),
    ("one address", "address"),
    ("one user or API key", "principal"),
    ("all callers together, to register, log in, reset", "credentials"),
    ("one address, the same", "credentials_address"),
    ("all callers together, confirming, saving cards, topping up", "cards"),
    ("one address, the same", "cards_address"),
    ("one user, the same", "cards_user"),
    ("one key, the same", "cards_key"),
)


def limits() -> list[Limit]:
    """Return every limit that a module of the servers has."""
    names = [module.name for module in pkgutil.walk_packages(servers.__path__, "servers.")]
    modules = [importlib.import_module(name) for name in names if "__main__" not in name and "migrations" not in name]
    return list(
        {id(one): one for module in modules for one in vars(module).values() if isinstance(one, Limit)}.values()
    )


def test_the_table_of_the_edges_buckets_is_its_configuration() -> None:
    assert [key for _, key in BUCKETS] == list(LIMITS)
    configured = [(of, LIMITS[key]["burst"], LIMITS[key]["per_second"]) for of, key in BUCKETS]
    assert [(of, int(burst), int(rate)) for of, burst, rate in OF_THE_EDGE.findall(SECTION)] == configured


def test_the_table_of_the_servers_limits_has_each_of_them() -> None:
    told = {name: (int(burst), float(every)) for name, burst, every in OF_THE_SERVERS.findall(SECTION)}
    assert told == {limit.name: (limit.burst, limit.every_seconds) for limit in limits()}


def test_the_sizes_are_those_of_the_edge() -> None:
    body, headers = re.findall(r"Bodies beyond (\d+) MiB are 413, headers beyond (\d+) KiB are 431", SECTION)[0]
    assert int(body) * 1024 * 1024 == BODY_BYTES_MAX
    assert re.findall(r"max_request_headers_kb: (\d+)", Path(TEMPLATE).read_text()) == [headers]
