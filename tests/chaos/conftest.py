"""The desk of the payments tests, for the long proofs."""

from tests.integration.payments.conftest import desk

__all__ = ["desk"]
