"""Assertions that no interpreter flag strips."""

from __future__ import annotations


class InvariantBroken(Exception):
    """A fact that the code relies on does not hold: our bug, never the caller's fault."""


def invariant(condition: bool, message: str, **facts: object) -> None:
    """Raise InvariantBroken with `message` and `facts` unless `condition` holds."""
    if not condition:
        detail = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise InvariantBroken(f"{message} ({detail})" if detail else message)
