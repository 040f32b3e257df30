"""Routes, idempotency and faults: what stands between the wire and the engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.stripe.clock import Clock
from sandbox.stripe.engine import Declined, Engine
from sandbox.stripe.events import Events
from sandbox.stripe.ledger import Ledger
from sandbox.stripe.schema import Schema
from sandbox.stripe.settings import Settings
from sandbox.stripe.store import Store
from sandbox.stripe.wire import Answer, Call, Json, StripeError, invalid, parse_form

KEEP_KEYS_SECONDS = 24 * 3600
LISTS = {
    "/v1/payment_intents": "payment_intent",
    "/v1/charges": "charge",
    "/v1/refunds": "refund",
    "/v1/customers": "customer",
    "/v1/events": "event",
    "/v1/balance_transactions": "balance_transaction",
}
KINDS = {path.rsplit("/", 1)[1]: kind for path, kind in LISTS.items()} | {"payment_methods": "payment_method"}
EXPANDABLE = {"balance_transaction": "balance_transaction", "latest_charge": "charge", "charge": "charge",
              "payment_method": "payment_method", "payment_intent": "payment_intent", "customer": "customer"}  # fmt: skip


@dataclass
class Fault:
    """A bounded number of requests that go wrong."""

    method: str
    path: re.Pattern[str]
    kind: str
    times: int
    delay_seconds: float = 0.0
    status: int = 500


@dataclass
class Sandbox:
    """The application's state."""

    settings: Settings
    store: Store
    clock: Clock
    events: Events
    engine: Engine
    ledger: Ledger
    schema: Schema = field(default_factory=Schema)
    faults: list[Fault] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    def work(self, call: Call) -> Json:
        """Do a request's work. Raises StripeError or Declined."""
        params = self.schema.check(call.method, call.path, call.params)
        for method, pattern, act in ROUTES:
            found = pattern.fullmatch(call.path)
            if found and method == call.method:
                return self._expanded(act(self, params, *found.groups()), params.get("expand", []))
        raise StripeError(501, "api_error", f"The sandbox does not serve {call.method.upper()} {call.path}.")

    def _expanded(self, body: Json, names: list[str]) -> Json:
        for name in names:
            head, _, rest = name.partition(".")
            if head == "data":
                body["data"] = [self._expanded(item, [rest]) for item in body["data"]]
            elif isinstance(body.get(head), str) and head in EXPANDABLE:
                child = self.store.get(EXPANDABLE[head], body[head])
                body[head] = self._expanded(child, [rest]) if child is not None and rest else child
        return body

    def listed(self, path: str, params: Json) -> Json:
        """Return one page of a list, newest first."""
        items = self.store.newest(LISTS[path])
        for name in ("customer", "payment_intent", "charge", "type", "source"):
            if name in params:
                items = [item for item in items if item.get(name) == params[name]]
        if LISTS[path] == "balance_transaction":
            items = [self.ledger.current(item) for item in items]
        ids = [item["id"] for item in items]
        if (after := params.get("starting_after")) in ids:
            items = items[ids.index(after) + 1 :]
        elif (before := params.get("ending_before")) in ids:
            items = items[: ids.index(before)]
        limit = max(1, min(params.get("limit", 10), 100))
        return {"object": "list", "data": items[:limit], "has_more": len(items) > limit, "url": path}

    def one(self, collection: str, identifier: str) -> Json:
        """Return one object by its collection's name."""
        if collection == "payment_methods":
            return self.engine.payment_method(identifier)
        body = self.engine.load(KINDS[collection], identifier, "id")
        return self.ledger.current(body) if collection == "balance_transactions" else body


Act = Callable[..., Json]
_ID = "([A-Za-z0-9_]+)"


def _listed(path: str, box: Sandbox, params: Json) -> Json:
    return box.listed(path, params)


_TABLE: tuple[tuple[str, str, Act], ...] = (
    ("post", "/v1/customers", lambda s, p: s.engine.create_customer(p)),
    ("post", "/v1/payment_methods", lambda s, p: s.engine.create_payment_method(p)),
    ("post", f"/v1/payment_methods/{_ID}/attach", lambda s, p, i: s.engine.attach(i, p)),
    ("post", f"/v1/payment_methods/{_ID}/detach", lambda s, p, i: s.engine.detach(i)),
    ("post", "/v1/payment_intents", lambda s, p: s.engine.create_intent(p)),
    ("post", f"/v1/payment_intents/{_ID}/confirm", lambda s, p, i: s.engine.confirm(i, p)),
    ("post", f"/v1/payment_intents/{_ID}/capture", lambda s, p, i: s.engine.capture(i, p)),
    ("post", f"/v1/payment_intents/{_ID}/cancel", lambda s, p, i: s.engine.cancel(i, p)),
    ("post", "/v1/refunds", lambda s, p: s.engine.create_refund(p)),
    ("get", "/v1/balance", lambda s, p: s.ledger.balance()),
    *(("get", path, partial(_listed, path)) for path in LISTS),
    ("get", f"/v1/({'|'.join(KINDS)})/{_ID}", lambda s, p, c, i: s.one(c, i)),
)
ROUTES: list[tuple[str, re.Pattern[str], Act]] = [(method, re.compile(pattern), act) for method, pattern, act in _TABLE]


async def api(request: Request) -> Response:
    """Serve one API request: faults, credentials, idempotency, work."""
    box: Sandbox = request.app.state.box
    authorization = request.headers.get("authorization", "")
    if authorization.removeprefix("Bearer ") != box.settings.api_key.get_secret_value():
        error = invalid("Invalid API Key provided.", status=401)
        return _respond(Answer(status=401, body=error.body))
    method = request.method.lower()
    text = request.url.query if method == "get" else (await request.body()).decode()
    fault = _take_fault(box, method, request.url.path)
    if fault is not None and fault.kind == "refuse":
        return _hang_up()
    if fault is not None and fault.kind == "error":
        error = StripeError(fault.status, "api_error", "A fault of the sandbox.")
        return _respond(Answer(status=fault.status, body=error.body))
    if fault is not None and fault.kind == "delay":
        await asyncio.sleep(fault.delay_seconds)
    answer, replayed = _serve(box, request, method, text)
    if fault is not None and fault.kind == "lose_response":
        return _hang_up()
    return _respond(answer, replayed=replayed)


def _serve(box: Sandbox, request: Request, method: str, text: str) -> tuple[Answer, bool]:
    key = request.headers.get("idempotency-key", "") if method == "post" else ""
    path = request.url.path
    fingerprint = hashlib.sha256(f"{path}\n{text}".encode()).hexdigest()
    try:
        call = Call(method=method, path=path, params=parse_form(text), idempotency_key=key)
        with box.store.transaction():
            box.store.count_request(f"{method} {path}")
            if key and (stored := _stored(box, key, fingerprint)):
                return stored, True
            try:
                answer = Answer(status=200, body=box.work(call))
            except Declined as declined:
                answer = Answer(status=declined.error.status, body=declined.error.body)
            if key:
                box.store.db.execute(
                    "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)",
                    (key, fingerprint, answer.status, json.dumps(answer.body), box.clock.now()),
                )
        return answer, False
    except StripeError as error:
        return Answer(status=error.status, body=error.body), False


def _stored(box: Sandbox, key: str, fingerprint: str) -> Answer | None:
    row = box.store.db.execute(
        "SELECT fingerprint, status, body FROM idempotency WHERE key = ? AND created > ?",
        (key, box.clock.now() - KEEP_KEYS_SECONDS),
    ).fetchone()
    if row is None:
        return None
    if row[0] != fingerprint:
        raise StripeError(
            400,
            "idempotency_error",
            "Keys for idempotent requests can only be used with the same parameters they were first used with.",
        )
    return Answer(status=row[1], body=json.loads(row[2]))


def _take_fault(box: Sandbox, method: str, path: str) -> Fault | None:
    for fault in box.faults:
        if fault.times > 0 and fault.method == method and fault.path.search(path):
            fault.times -= 1
            return fault
    return None


class _HangUp(Response):
    """An answer that never comes: the connection is closed without a byte."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        transport = scope.get("extensions", {}).get("sandbox_transport")
        if transport is not None:
            transport.abort()


def _hang_up() -> Response:
    return _HangUp()


def _respond(answer: Answer, *, replayed: bool = False) -> Response:
    headers = {"request-id": f"req_{secrets.token_hex(8)}", "x-simulated": "true"}
    if replayed:
        headers["idempotent-replayed"] = "true"
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)


async def control(request: Request) -> Response:
    """Serve `/_sandbox/…`: switches for tests, on loopback only."""
    box: Sandbox = request.app.state.box
    name = request.path_params["name"]
    body = json.loads(await request.body() or b"{}")
    with box.store.transaction():
        match request.method, name.split("/"):
            case "GET", ["healthz"]:
                return JSONResponse({"status": "ok"})
            case "GET", ["stats"]:
                charges = box.store.newest("charge")
                paid: dict[str, int] = {}
                for charge in charges:
                    paid[charge["payment_intent"]] = paid.get(charge["payment_intent"], 0) + charge["paid"]
                counts = dict(box.store.db.execute("SELECT path, count FROM requests").fetchall())
                return JSONResponse(
                    {"paid_charges": paid, "requests": counts, "refunds": len(box.store.newest("refund"))}
                )
            case "POST", ["clock"]:
                return JSONResponse({"now": box.clock.advance(int(body["advance_seconds"]))})
            case "POST", ["faults"]:
                box.faults.append(
                    Fault(
                        method=body["method"].lower(),
                        path=re.compile(body["path"]),
                        kind=body["kind"],
                        times=int(body.get("times", 1)),
                        delay_seconds=float(body.get("delay_seconds", 0)),
                        status=int(body.get("status", 500)),
                    )
                )
            case "DELETE", ["faults"]:
                box.faults.clear()
            case "POST", ["webhooks"]:
                box.events.paused = bool(body.get("paused", box.events.paused))
                box.events.copies = int(body.get("copies", box.events.copies))
                box.events.wake()
            case "POST", ["events", event_id, "resend"]:
                box.events.resend(event_id)
            case "POST", ["payment_intents", intent, "authenticate"]:
                return JSONResponse(box.engine.authenticate(intent, succeed=bool(body.get("succeed", True))))
            case "POST", ["refunds", refund, "fail"]:
                return JSONResponse(box.engine.fail_refund(refund))
            case _:
                return JSONResponse({"error": f"no switch {request.method} {name}"}, status_code=404)
    return JSONResponse({"ok": True})


def make_app(settings: Settings) -> Starlette:
    """Put the sandbox together."""
    store = Store(settings.data_dir)
    clock = Clock(store)
    events = Events(store, clock, settings)
    ledger = Ledger(store, clock)
    box = Sandbox(
        settings=settings,
        store=store,
        clock=clock,
        events=events,
        engine=Engine(store, clock, ledger, events),
        ledger=ledger,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(events.deliver())
        yield
        task.cancel()

    verbs = ["GET", "POST", "DELETE"]
    app = Starlette(
        routes=[
            Route("/_sandbox/{name:path}", control, methods=verbs),
            Route("/{path:path}", api, methods=verbs),
        ],
        lifespan=lifespan,
    )
    app.state.box = box
    return app
