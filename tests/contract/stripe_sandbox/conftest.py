"""Every object that a test of this folder made is checked against Stripe's own description when its module ends."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dev.paths import ROOT
from sandbox.stripe.routes import KINDS
from tests.support.sandbox import SandboxProcess, close_clients


@pytest.fixture(scope="session")
def schemas() -> dict[str, Any]:
    """Return Stripe's schemas, with OpenAPI's `nullable` as JSON Schema has it."""
    document = json.loads(gzip.decompress((ROOT / "sandbox/stripe/schema/spec3.reduced.json.gz").read_bytes()))

    def converted(node: Any) -> Any:
        if isinstance(node, list):
            return [converted(item) for item in node]
        if not isinstance(node, dict):
            return node
        plain = {key: converted(value) for key, value in node.items() if key != "nullable"}
        return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain

    return {"components": {"schemas": converted(document["components"]["schemas"])}}


@pytest.fixture(scope="session")
def validators(schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a validator for each kind of object."""
    return {
        kind: jsonschema.Draft202012Validator(schemas | {"$ref": f"#/components/schemas/{kind}"})
        for kind in schemas["components"]["schemas"]
    }


Check = Callable[[SandboxProcess], set[str]]
"""A check of all objects of a sandbox and of all its events' snapshots, once each as they stand. Returns the kinds that it saw."""


@pytest.fixture(scope="session")
def check(validators: dict[str, Any]) -> Check:
    """Return the check against Stripe's own description."""
    done: set[str] = set()

    def check_all(sandbox: SandboxProcess) -> set[str]:
        seen = set()
        for path in KINDS:
            for body in sandbox.all(path):
                subjects = [body, body["data"]["object"]] if body["object"] == "event" else [body]
                for subject in subjects:
                    seen.add(subject["object"])
                    text = json.dumps(subject)
                    if text not in done:
                        validators[subject["object"]].validate(subject)
                        done.add(text)
        return seen

    return check_all


@pytest.fixture(scope="module", autouse=True)
def every_object_fits_stripes_own_description(sandbox: SandboxProcess, check: Check) -> Iterator[None]:
    """Check what the module's tests made."""
    yield
    check(sandbox)


def _started(folder: Path, check: Check) -> Iterator[SandboxProcess]:
    process = SandboxProcess(str(folder))
    try:
        yield process
        check(process)
    finally:
        process.kill()
        process.hooks.close()


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, check: Check) -> Iterator[SandboxProcess]:
    """Return a sandbox of the module's own, whose clock and books no other module moves."""
    yield from _started(tmp_path_factory.mktemp("books"), check)


@pytest.fixture
def fresh(tmp_path: Path, check: Check) -> Iterator[SandboxProcess]:
    """Return a sandbox of the test's own, in which nothing has happened."""
    yield from _started(tmp_path, check)


@pytest.fixture(autouse=True)
async def no_connection_is_left() -> AsyncIterator[None]:
    """Close the test's clients, in the test's event loop."""
    yield
    await close_clients()
