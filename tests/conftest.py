"""Fixtures that every kind of test may ask for; the heavy ones start only when asked."""

import hypothesis  # noqa: F401  # at the start: CPython 3.11 cannot compile modules after a deep recursion was cut short

pytest_plugins = [
    "tests.support.broken_builds",
    "tests.support.postgres",
    "tests.support.ledger",  # after what it imports, so that its asserts are rewritten too
    "tests.support.charging",
    "tests.support.sandbox",
    "tests.support.stack",
    "tests.support.tally",
    "tests.support.valkey",
    "tests.support.staff",
    "tests.support.gate",  # after the stack, which it imports
]
