"""What the audit says of one invariant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one check."""

    invariant: str
    title: str
    looked_at: int
    broken: tuple[tuple[str, str], ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.broken
