"""Answers and events that say something else than what is so: another amount, currency or id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sandbox.stripe.wire import Json

OTHER_CURRENCY = {"eur": "usd"}


@dataclass(frozen=True, slots=True)
class Lie:
    """Which fields are wrong: given values, or, for names alone, values that are surely others."""

    values: Json = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any) -> Lie:
        """Read `{"amount": 999}` or `["amount", "currency", "id"]`. Raises ValueError for anything else."""
        if isinstance(given, dict):
            return cls(dict(given))
        if isinstance(given, list) and all(isinstance(name, str) for name in given):
            return cls(dict.fromkeys(given, _OTHER))
        raise ValueError("`set` is an object of fields and values, or a list of fields")

    def tell(self, truth: Json) -> Json:
        """Return a copy that is wrong. What is stored stays true."""
        wrong = {
            name: _other(name, truth.get(name)) if value is _OTHER else value for name, value in self.values.items()
        }
        return {**truth, **wrong}


_OTHER: Any = object()


def _other(name: str, value: Any) -> Any:
    if name == "currency":
        return OTHER_CURRENCY.get(value, "eur")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    # An id of the same kind that nobody has.
    return f"{str(value).partition('_')[0]}_of_somebody_else"
