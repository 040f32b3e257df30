"""Merkle trees as in RFC 6962 section 2.1: SHA-256, leaves and nodes told apart by a first byte, any number of leaves.

A tree's root stands for all of its leaves in their order. A path proves that one leaf is among them, with a hash for each level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

EMPTY: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf's content."""
    return hashlib.sha256(b"\x00" + data).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree, given the hashes of its leaves."""
    if not leaves:
        return EMPTY
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


class Tree:
    """A tree that is kept, to give paths: 64 bytes of hashes a leaf."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(self._levels[-1]) > 1:
            self._levels.append(_above(self._levels[-1]))

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """The hash that stands for all of it."""
        return self._levels[-1][0] if self.size else EMPTY

    def path(self, index: int) -> list[bytes]:
        """Return the hashes that lead from the leaf at `index` to the root, the lowest first. Raises IndexError."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        path = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index //= 2
        return path


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root to which a path leads from the leaf at `index` in a tree of `size` leaves; None where it cannot be one."""
    if not 0 <= index < size:
        return None
    rest, current = list(path), leaf
    while size > 1:
        if index ^ 1 < size:
            if not rest:
                return None
            beside = rest.pop(0)
            current = _node(beside, current) if index & 1 else _node(current, beside)
        index, size = index // 2, (size + 1) // 2
    return None if rest else current


def _above(level: list[bytes]) -> list[bytes]:
    """Return the next level up. A last one without a partner moves up as it is, which is the tree of the RFC."""
    above = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) & 1:
        above.append(level[-1])
    return above


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
