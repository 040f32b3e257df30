"""Every object that a test of this folder made is checked against Stripe's own description when its module ends."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
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


@pytest.fixture(scope="session")
def checked(sandbox: SandboxProcess, validators: dict[str, Any]) -> Callable[[], set[str]]:
    """Return a check of all objects and of all events' snapshots, once each as they stand. It returns the kinds that it saw."""
    done: set[str] = set()

    def check() -> set[str]:
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

    return check


@pytest.fixture(scope="module", autouse=True)
def every_object_fits_stripes_own_description(checked: Callable[[], set[str]]) -> Iterator[None]:
    """Check what the module's tests made."""
    yield
    checked()


@pytest.fixture(autouse=True)
async def no_connection_is_left() -> AsyncIterator[None]:
    """Close the test's clients, in the test's event loop."""
    yield
    await close_clients()
