"""What refusals tell is what the catalogue says of their reasons: each class is made, and the keys of its metadata compared."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import typing
from typing import Any

import pytest
from google.rpc import error_details_pb2
from paymesh.errors.v1.error_reason_pb2 import ErrorReason

import servers
from dev.edge import LOCAL_REPLIES
from dev.paths import ROOT
from servers.kernel.errors import FieldViolation, Refusal
from servers.kernel.money import Money
from servers.runtime import grpc_errors
from servers.runtime.throttle import Limit

CATALOGUE = (ROOT / "proto/paymesh/errors/v1/error_reason.proto").read_text()
API_PAGE = (ROOT / "docs/api.md").read_text()
VALUE = re.compile(r"((?:^  //[^\n]*\n)+)  ([A-Z_]+) = \d+;", re.MULTILINE)
KEYS = re.compile(r"(Metadata|Optional metadata): ((?:`\w+`(?:, )?)+)\.")
ARGUMENTS: dict[Any, Any] = {
    str: "x",
    float: 1.0,
    Money: Money(amount_minor=1, currency="USD"),
    Limit: Limit(name="x", burst=1, every_seconds=1),
    FieldViolation: FieldViolation(field="x", description="x"),
}


def keys_in(text: str) -> dict[str, frozenset[str]]:
    """Return the keys that a description names: those that are always there, and the optional ones."""
    return {kind: frozenset(re.findall(r"\w+", listed)) for kind, listed in KEYS.findall(text)}


def documented() -> dict[str, dict[str, frozenset[str]]]:
    """Return what the catalogue says of each reason."""
    return {reason: keys_in(re.sub(r"\n  //", "", comment)) for comment, reason in VALUE.findall(CATALOGUE)}


def refusals() -> list[type[Refusal]]:
    """Return every class of refusals that any module of the servers has."""
    for module in pkgutil.walk_packages(servers.__path__, "servers."):
        if "__main__" not in module.name and "migrations" not in module.name:
            importlib.import_module(module.name)

    def below(kind: type[Refusal]) -> list[type[Refusal]]:
        return [kind, *(child for direct in kind.__subclasses__() for child in below(direct))]

    # Those of other servers are made as they come; their own servers are held to the catalogue.
    return [kind for kind in below(Refusal) if hasattr(kind, "reason") and kind.__name__ != "PeersRefusal"]


def made(kind: type[Refusal]) -> Refusal:
    """Return a refusal of a class, made as its constructor wants it."""
    assert kind.__init__ is not Refusal.__init__, f"{kind.__name__} lets whoever raises it choose its keys"
    hints = typing.get_type_hints(kind.__init__)
    given = list(inspect.signature(kind).parameters)
    return kind(*(ARGUMENTS[hints[name]] for name in given))


@pytest.mark.parametrize("kind", refusals(), ids=lambda kind: kind.__name__)
def test_a_refusal_carries_the_keys_of_its_reason(kind: type[Refusal]) -> None:
    said = documented()[kind.reason]
    always, optional = said.get("Metadata", frozenset()), said.get("Optional metadata", frozenset())
    carried = frozenset(made(kind).metadata)
    assert always <= carried <= always | optional


def test_an_optional_key_is_carried_by_some_refusal_of_its_reason_and_not_by_all() -> None:
    replies = [(reason, frozenset[str]()) for _, _, reason, _ in LOCAL_REPLIES]
    told = [*((kind.reason, frozenset(made(kind).metadata)) for kind in refusals()), *replies]
    for reason, said in documented().items():
        for key in said.get("Optional metadata", ()):
            assert {key in keys for of, keys in told if of == reason} == {True, False}, (reason, key)


def test_what_the_edge_answers_by_itself_promises_no_keys() -> None:
    assert {reason for _, _, reason, _ in LOCAL_REPLIES if "Metadata" in documented()[reason]} == set()


def test_every_reason_of_the_catalogue_is_told_by_somebody() -> None:
    by_hand = {
        "INTERNAL_ERROR": grpc_errors.internal_status,
        "DEADLINE_PASSED": grpc_errors.deadline_status,
        "METHOD_NOT_FOUND": grpc_errors.unknown_method_status,
    }
    for reason, make in by_hand.items():
        info = error_details_pb2.ErrorInfo()
        assert make().details[0].Unpack(info)
        assert (info.reason, dict(info.metadata)) == (reason, {})
        assert documented()[reason] == {}
    told = {kind.reason for kind in refusals()} | set(by_hand)
    assert told == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def test_the_table_of_the_api_page_names_the_same_keys() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \|.*\| (.*) \|$", API_PAGE, re.MULTILINE))
    assert {reason: keys_in(text) for reason, text in rows.items()} == {
        reason: keys for reason, keys in documented().items() if reason in rows
    }
    assert rows
