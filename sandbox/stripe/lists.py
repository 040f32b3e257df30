"""Lists, newest first, and the expansion of ids into objects (https://docs.stripe.com/api/pagination, /expanding_objects)."""

from __future__ import annotations

import re
from typing import Final

from sandbox.stripe.desk import Desk
from sandbox.stripe.evidence import FILES
from sandbox.stripe.store import Page
from sandbox.stripe.wire import Json, invalid, missing

LIMIT_MAX: Final = 100
TYPES_MAX: Final = 20
EVENTS_KEPT_SECONDS: Final = 30 * 24 * 3600
"""Older events are not found any more (https://docs.stripe.com/api/events)."""
FILTERS: Final = {
    "payment_intent": ("customer",),
    "setup_intent": ("customer", "payment_method"),
    "charge": ("customer", "payment_intent", "transfer_group"),
    "refund": ("charge", "payment_intent"),
    "customer": ("email",),
    "payment_method": ("customer", "type"),
    "balance_transaction": ("currency", "source", "type"),
    "dispute": ("charge", "payment_intent"),
    "radar.early_fraud_warning": ("charge", "payment_intent"),
    "payout": ("destination", "status"),
    "topup": ("status",),
    "file": ("purpose",),
    "event": (),
}
"""Which attributes each kind can be listed by."""
_RANGES: Final = {"payout": ("arrival_date", "created"), "payment_method": (), "topup": ("amount", "created")}
"""Which attributes each kind can be listed by a range of; `created` where nothing is said."""
_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_EXPANDABLE: Final = {
    "payment_intent": {"customer": "customer", "latest_charge": "charge", "payment_method": "payment_method"},
    "setup_intent": {"customer": "customer", "payment_method": "payment_method"},
    "charge": {
        "customer": "customer",
        "payment_intent": "payment_intent",
        "balance_transaction": "balance_transaction",
    },
    "refund": {
        "charge": "charge",
        "customer": "customer",
        "payment_method": "payment_method",
        "payment_intent": "payment_intent",
        "balance_transaction": "balance_transaction",
        "failure_balance_transaction": "balance_transaction",
    },
    "payment_method": {"customer": "customer"},
    "balance_transaction": {"source": ""},
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "radar.early_fraud_warning": {"charge": "charge", "payment_intent": "payment_intent"},
    "payout": {"balance_transaction": "balance_transaction", "failure_balance_transaction": "balance_transaction"},
    "topup": {"balance_transaction": "balance_transaction"},
}
_SOURCES: Final = {"ch": "charge", "du": "dispute", "po": "payout", "re": "refund", "tu": "topup"}
EXPAND_DEPTH_MAX: Final = 4


def served_filters(kind: str) -> frozenset[str]:
    """Return the parameters that a list takes."""
    paging = {"limit", "starting_after", "ending_before", "expand"}
    own = {"event": {"delivery_success", "type", "types"}, "balance_transaction": {"payout"}}.get(kind, set())
    return frozenset(paging | own | set(FILTERS[kind]) | set(_ranges(kind)))


def listed(desk: Desk, kind: str, url: str, params: Json) -> Json:
    """Return one page of a list."""
    limit = params.get("limit", 10)
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid(f"The limit must be from 1 to {LIMIT_MAX}.", code="parameter_invalid_integer", param="limit")
    if "starting_after" in params and "ending_before" in params:
        raise invalid("You may only specify one of these parameters: starting_after, ending_before.")
    where: list[str] = []
    values: list[object] = []
    if kind == "customer":
        where.append("json_extract(body, '$.deleted') IS NULL")
    for name in FILTERS[kind]:
        if name in params:
            where.append(f"json_extract(body, '$.{name}') = ?")
            values.append(params[name])
    _by_type(params, where, values)
    for name in _ranges(kind):
        _by_range(name, params.get(name), where, values)
    if kind == "event":
        where.append("json_extract(body, '$.created') > ?")
        values.append(desk.clock.now() - EVENTS_KEPT_SECONDS)
        if "delivery_success" in params:
            where.append(desk.events.delivered(params["delivery_success"]))
    if kind == "balance_transaction" and "payout" in params:
        where.append("id IN (SELECT transaction_id FROM paid_out WHERE payout = ?)")
        values.append(params["payout"])
    page = Page(
        kind=kind,
        where=where,
        values=values,
        after=_cursor(desk, kind, params, "starting_after"),
        before=_cursor(desk, kind, params, "ending_before"),
        limit=limit,
    )
    items, has_more = desk.store.page(page)
    return {"object": "list", "data": [current(desk, item) for item in items], "has_more": has_more, "url": url}


def _by_type(params: Json, where: list[str], values: list[object]) -> None:
    if "type" in params and "types" in params:
        raise invalid("You may only specify one of these parameters: type, types.")
    patterns = [params["type"]] if "type" in params else params.get("types", [])
    if not patterns:
        return
    if len(patterns) > TYPES_MAX:
        raise invalid(f"You may specify at most {TYPES_MAX} types.", param="types")
    if any(not re.fullmatch(r"[a-z0-9_.*]+", pattern) for pattern in patterns):
        raise invalid("Invalid event type.", param="type")
    where.append("(" + " OR ".join("json_extract(body, '$.type') GLOB ?" for _ in patterns) + ")")
    values.extend(patterns)


def _ranges(kind: str) -> tuple[str, ...]:
    return _RANGES.get(kind, ("created",))


def _by_range(attribute: str, given: object, where: list[str], values: list[object]) -> None:
    bounds = given if isinstance(given, dict) else {} if given is None else {"gte": given, "lte": given}
    for name, bound in bounds.items():
        where.append(f"json_extract(body, '$.{attribute}') {_COMPARISONS[name]} ?")
        values.append(bound)


def _cursor(desk: Desk, kind: str, params: Json, name: str) -> int | None:
    if name not in params:
        return None
    place = desk.store.position(kind, params[name])
    if place is None:
        raise invalid(f"No such {kind}: '{params[name]}'", code="resource_missing", param=name)
    return place


def current(desk: Desk, body: Json) -> Json:
    """Return an object with what depends on the present moment."""
    match body["object"]:
        case "balance_transaction":
            return desk.ledger.current(body)
        case "event":
            if body["created"] <= desk.clock.now() - EVENTS_KEPT_SECONDS:
                raise missing("event", body["id"], "id")
            return desk.events.current(body)
    return body


def expanded(desk: Desk, body: Json, names: list[str]) -> Json:
    """Replace ids by their objects. Raises Stripe's 400 for what cannot be expanded."""
    for name in names:
        path = name.split(".")
        if path[0] == "data" and body.get("object") == "list":
            for item in body["data"]:
                _expand(desk, item, path[1:], name)
        else:
            _expand(desk, body, path, name)
    return body


def _expand(desk: Desk, body: Json, path: list[str], name: str) -> None:
    if not path or len(path) > EXPAND_DEPTH_MAX:
        raise invalid(f"This property cannot be expanded ({name}).", param="expand")
    head, *rest = path
    if head == "evidence" and body["object"] == "dispute" and rest and rest[0] in FILES:
        file = desk.store.get("file", body["evidence"].get(rest[0]) or "")
        body["evidence"] = body["evidence"] | ({rest[0]: file} if file is not None else {})
        return
    if head == "refunds" and body["object"] == "charge":
        page = Page(kind="refund", where=["json_extract(body, '$.charge') = ?"], values=[body["id"]])
        items, has_more = desk.store.page(page)
        url = f"/v1/charges/{body['id']}/refunds"
        body["refunds"] = {"object": "list", "data": items, "has_more": has_more, "url": url}
        return
    kind = _EXPANDABLE.get(body["object"], {}).get(head)
    if kind is None:
        raise invalid(f"This property cannot be expanded ({name}).", param="expand")
    value = body.get(head)
    if isinstance(value, str):
        found = desk.store.get(kind or _SOURCES[value.partition("_")[0]], value)
        body[head] = value = current(desk, found) if found is not None else value
    if rest and isinstance(value, dict):
        _expand(desk, value, rest, name)
