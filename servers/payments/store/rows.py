"""What every statement of the domain minds."""

from __future__ import annotations

from servers.kernel.errors import ConcurrentUpdate


def one(rowcount: int, resource: str) -> None:
    """Raise ConcurrentUpdate unless exactly one row was changed: somebody else had the version before."""
    if rowcount != 1:
        raise ConcurrentUpdate(resource)
