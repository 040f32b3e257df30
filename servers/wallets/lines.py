"""A fact's lines: how one is made, and how they are posted as one chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from servers.kernel.ids import bucket_of, derive_id
from servers.kernel.money import Money
from servers.wallets.domain import DONE, AccountKind, Sheet, Transfer, TransferKind, Verdict, account_id


def line_id(fact_id: str, code: str, owner_id: str) -> str:
    """Return the id of a fact's line, in its owner's bucket: the same for everybody who tells of the fact."""
    return derive_id("trf", fact_id, code, bucket=bucket_of(owner_id))


def line(
    fact_id: str, code: str, debit: tuple[str, AccountKind], credit: tuple[str, AccountKind], amount: Money,
    *, owner_id: str, time: datetime, forced: bool = False,
) -> Transfer:  # fmt: skip
    """Return a line that moves money at once."""
    return Transfer(
        id=line_id(fact_id, code, owner_id),
        debit_account_id=account_id(*debit, amount.currency),
        credit_account_id=account_id(*credit, amount.currency),
        amount_minor=amount.amount_minor,
        currency=amount.currency,
        code=code,
        kind=TransferKind.POSTED,
        fact_id=fact_id,
        effective_time=time,
        forced=forced,
    )


def post_lines(sheet: Sheet, lines: Sequence[Transfer]) -> tuple[Verdict, list[Transfer]]:
    """Post lines as one chain: all of them, or none and the verdict that refused. A line of nothing is not written, unless it is
    the end of a hold, which takes what is left."""
    lines = [one for one in lines if one.amount_minor > 0 or one.kind is TransferKind.VOID_PENDING]
    chain = [replace(one, linked=index + 1 < len(lines)) for index, one in enumerate(lines)]
    verdicts = [verdict for verdict, _ in sheet.post(chain)]
    refused = [v for v in verdicts if v not in DONE and v is not Verdict.LINKED_FAILED]
    if refused:
        return refused[0], []
    created = Verdict.CREATED if Verdict.CREATED in verdicts else Verdict.EXISTS
    return created, [sheet.known[one.id] for one in chain]
