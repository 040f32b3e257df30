"""Requests that nobody means well by, made from the contract: for every REST route plausible ones with something wrong in them."""

from __future__ import annotations

import json
import random
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from dev import edge

BEYOND: Final = 2**63
STRINGS: Final = (
    *("", " ", "x", "0", "-1", "null", "9.5", "1e3", "NaN", "USD", "usd", "KWD", "true", "2026-01-01T00:00:00Z"),
    *("\x00", "a\x00b", "\x1b[2J", "\u202e\u2066", "\ufeff", "\U0001f40e" * 300, "e\u0301" * 60, "\u5bc6\u7801" * 40),
    *("'; DROP TABLE users; --", "%s%n", "{{7*7}}", "../../etc/passwd", "<script>", "x" * 5_000, "x" * 100_000),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-02-30T00:00:00Z", "pay_" + "0" * 26),
    *("a@b.example", "@", "8e1f3d5c-4b0a-4f7e-9c39-0d4a3c1b2a10", "\r\nx-injected: 1", "\ud800"),
)
NUMBERS: Final = (0, -1, 1, 99, 2**31, -(2**31) - 1, BEYOND - 1, BEYOND, -BEYOND - 1, 10**30, 9.5, 1e308, -0.0)
# Their sum is what a field may hold that is of no type of the contract at all.
OTHERS: Final[tuple[Any, ...]] = (None, True, False, [], {}, [[]], [None], {"": ""}, {"@type": "type.googleapis.com/x"})
CONTENT_TYPES: Final = ("text/plain", "application/xml", "", "application/x-www-form-urlencoded", "multipart/form-data")
VERBS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND")
BODIES: Final = (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":' * 200, b'{"' + b"x" * 70_000 + b'": 1}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One request."""

    verb: str
    path: str
    body: bytes | None
    content_type: str

    def __str__(self) -> str:
        """Return it short enough to be read in a failure."""
        return f"{self.verb} {self.path[:200]} {self.content_type} {(self.body or b'')[:300]!r}"


class Fuzz:
    """Makes requests; the same seed makes the same ones. `ids` are values for the variables of paths, by their names."""

    def __init__(self, seed: int, ids: Mapping[str, str]) -> None:
        self._dice = random.Random(seed)
        self._ids = ids

    def attacks(self, rounds: int) -> Iterator[Attack]:
        """Yield one request for every route, that many times over: the limit of a route is not met by its turns."""
        methods = edge.methods()
        for _ in range(rounds):
            for method in methods:
                yield self._attack(method)

    def plausible(self, method: Any) -> dict[str, Any]:
        """Return a body with nothing wrong in it that can be told from the contract."""
        return {field.name: self._plausible(field) for field in method.input_type.fields}

    def _attack(self, method: Any) -> Attack:
        verb, path = edge.route_of(method) or ("", "")
        verb, place = verb.upper(), re.sub(r"{(\w+)}", lambda found: self._variable(found[1]), path)
        fields = [field for field in method.input_type.fields if "{" + field.name + "}" not in path]
        body = None
        if verb in ("POST", "PATCH", "PUT"):
            body = self._body(method.input_type, fields)
        else:
            place += self._query(fields)
        return Attack(
            verb=self._dice.choice(VERBS) if self._rarely() else verb,
            path=place,
            body=body,
            content_type=self._dice.choice(CONTENT_TYPES) if self._rarely() else "application/json",
        )

    def _rarely(self, one_in: int = 12) -> bool:
        return self._dice.randrange(one_in) == 0

    def _variable(self, name: str) -> str:
        if self._rarely(3):
            text = self._dice.choice(STRINGS).encode("utf-8", "replace")[:3_000]
            return urllib.parse.quote(text, safe="") or "x"
        return self._ids.get(name, f"{name.removesuffix('_id')[:3]}_{'0' * 26}")

    def _query(self, fields: list[FieldDescriptor]) -> str:
        given = [(f.name, self._text()) for f in fields if f.message_type is None and self._rarely(2)]
        if self._rarely():
            given.append(("no_such_field", "1"))
        return "?" + urllib.parse.urlencode(given, errors="replace") if given else ""

    def _text(self) -> str:
        return self._dice.choice([*STRINGS[:-1], *map(str, NUMBERS)])[:2_000]

    def _body(self, message: Descriptor, fields: list[FieldDescriptor]) -> bytes:
        if self._rarely():
            return self._dice.choice(BODIES)
        document = {field.name: self._plausible(field) for field in fields if not self._rarely(6)}
        for field in self._dice.sample(fields, k=min(len(fields), self._dice.choice((0, 1, 1, 1, 2, 3)))):
            document[field.name] = self._anything(field)
        return json.dumps(document).encode()

    def _plausible(self, field: FieldDescriptor) -> Any:
        """Return what gets by the rules of most fields, so that what is wrong about another one is met further inside."""
        if field.is_repeated:
            return {} if field.message_type is not None else ["payments:read"]
        if field.message_type is not None:
            if field.message_type.full_name == "google.protobuf.Timestamp":
                return "2036-01-01T00:00:00Z"
            return {inner.name: self._plausible(inner) for inner in field.message_type.fields}
        if field.enum_type is not None:
            return self._dice.choice(list(field.enum_type.values)).name
        if field.type == field.TYPE_BOOL:
            return False
        if field.type == field.TYPE_STRING:
            known = {
                "email": "a@b.example",
                "country": "US",
                "role": "viewer",
                "request_id": "",
                "page_token": "",
                "etag": "",
                "stripe_payment_method_id": "pm_card_visa",
            }
            text = "USD" if "currency" in field.name else "four words of nothing"
            return known.get(field.name) if field.name in known else self._ids.get(field.name, text)
        return "100"

    def _anything(self, field: FieldDescriptor, depth: int = 0) -> Any:
        """Return a value of the field's type, of another one, or of none."""
        if self._rarely(4):
            return self._dice.choice([*OTHERS, *NUMBERS, *STRINGS])
        if field.is_repeated:
            return self._dice.choice(
                [
                    [self._dice.choice([*STRINGS[:20], *NUMBERS]) for _ in range(self._dice.choice((1, 60, 2_000)))],
                    {self._dice.choice(STRINGS[:34]): self._dice.choice([*STRINGS[:34], *NUMBERS, *OTHERS])},
                    {f"k{number}": "v" for number in range(self._dice.choice((51, 2_000)))},
                ]
            )
        if field.message_type is not None and depth < 3:
            if field.message_type.full_name == "google.protobuf.Timestamp":
                return self._dice.choice([text for text in STRINGS if "T" in text])
            return {inner.name: self._anything(inner, depth + 1) for inner in field.message_type.fields}
        if field.enum_type is not None:
            return self._dice.choice([0, -1, 99, 2**31, "", "NO_SUCH_NAME", field.enum_type.values[-1].name.lower()])
        return self._dice.choice(STRINGS if field.type == field.TYPE_STRING else [*NUMBERS, *STRINGS])
