"""Fixtures that every kind of test may ask for; the heavy ones start only when asked."""

pytest_plugins = ["tests.support.postgres", "tests.support.sandbox", "tests.support.stack"]
