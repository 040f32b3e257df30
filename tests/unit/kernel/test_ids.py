"""Ids: sortable, shaped, and carrying their bucket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.kernel.clock import ManualClock
from servers.kernel.ids import bucket_of, derive_id, is_id, new_id
from servers.kernel.invariant import InvariantBroken


def test_ids_sort_by_time() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    made = []
    for _ in range(50):
        made.append(new_id("pay", clock=clock))
        clock.advance(timedelta(milliseconds=1))
    assert made == sorted(made)


@given(st.integers(0, 63), st.lists(st.text(), min_size=1, max_size=4))
def test_a_derived_id_is_the_same_for_everybody_and_in_its_bucket(bucket: int, parts: list[str]) -> None:
    made = derive_id("trf", *parts, bucket=bucket)
    assert made == derive_id("trf", *parts, bucket=bucket)
    assert is_id("trf", made)
    assert bucket_of(made) == bucket


def test_parts_do_not_run_into_each_other() -> None:
    assert derive_id("trf", "ab", "c", bucket=0) != derive_id("trf", "a", "bc", bucket=0)


def test_what_is_no_id_has_no_bucket() -> None:
    with pytest.raises(InvariantBroken):
        bucket_of("pay_short")
