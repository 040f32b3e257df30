"""What stands between the wire and the work: credentials, idempotency, faults, one transaction per request."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.stripe.clock import Clock
from sandbox.stripe.control import control
from sandbox.stripe.desk import Declined, Desk
from sandbox.stripe.events import Events
from sandbox.stripe.faults import Fault, Faults, HangUp, Kind, error_of
from sandbox.stripe.idempotency import Keys
from sandbox.stripe.journal import Entry, Journal, without_card_data
from sandbox.stripe.ledger import Ledger
from sandbox.stripe.lists import expanded
from sandbox.stripe.routes import Endpoint, Routes
from sandbox.stripe.schema import Schema
from sandbox.stripe.settings import API_VERSION, Settings
from sandbox.stripe.store import Store
from sandbox.stripe.wire import MAX_BODY_BYTES, Answer, Call, Json, StripeError, invalid, parse_form

TICK_SECONDS = 1.0


@dataclass
class Sandbox:
    """The application's state."""

    settings: Settings
    desk: Desk
    routes: Routes
    keys: Keys
    schema: Schema = field(default_factory=Schema)
    faults: Faults = field(default_factory=Faults)
    journal: Journal = field(default_factory=Journal)
    requests: Counter[str] = field(default_factory=Counter)

    def serve(self, call: Call, fault: Fault | None) -> tuple[Answer, str]:
        """Do a request's work in one transaction. Returns the answer and, for a replay, the first request's id."""
        found = self.routes.find(call.method, call.path)
        if found is None:
            raise StripeError(501, "api_error", f"The sandbox does not serve {call.method.upper()} {call.path}.")
        endpoint, ids = found
        self.requests[f"{endpoint.method} {endpoint.path}"] += 1
        if call.method == "get":
            return Answer(status=200, body=self._act(call, endpoint, ids)), ""
        with self.desk.store.transaction():
            replay = self.keys.replay(call) if call.idempotency_key else None
            if replay is not None:
                return replay.answer, replay.request_id
            params = self.schema.check(call.method, call.path, call.params)
            endpoint.check_served(params)
            answer = self._attempt(call, endpoint, ids, params, fault)
            if call.idempotency_key:
                self.keys.keep(call, answer)
        return answer, ""

    def tick(self) -> None:
        """Do what has become due by the business clock."""
        acts = self.routes.due()
        db, now = self.desk.store.db, self.desk.clock.now()
        due = db.execute("SELECT object_id, kind FROM timers WHERE due <= ? ORDER BY due", (now,)).fetchall()
        for identifier, kind in due:
            with self.desk.store.transaction():
                self.desk.forget(kind, identifier)
                acts[kind](identifier)

    def _act(self, call: Call, endpoint: Endpoint, ids: tuple[str, ...]) -> Json:
        params = self.schema.check(call.method, call.path, call.params)
        endpoint.check_served(params)
        return expanded(self.desk, endpoint.act(params, *ids), params.get("expand", []))

    def _attempt(
        self, call: Call, endpoint: Endpoint, ids: tuple[str, ...], params: Json, fault: Fault | None
    ) -> Answer:
        """Do the work, or none of it, and return what is answered. A decline keeps its work."""
        broken = error_of(fault) if fault is not None else None
        if broken is not None and fault is not None and not fault.after:
            return Answer(status=broken.status, body=broken.body)
        self.desk.events.cause = (call.request_id, call.idempotency_key)
        try:
            with self.desk.store.attempt():
                try:
                    body = expanded(self.desk, endpoint.act(params, *ids), params.get("expand", []))
                    answer = Answer(status=200, body=body)
                except Declined as declined:
                    answer = Answer(status=declined.error.status, body=declined.error.body)
        except StripeError as error:
            answer = Answer(status=error.status, body=error.body)
        finally:
            self.desk.events.cause = None
        return answer if broken is None else Answer(status=broken.status, body=broken.body)


async def api(request: Request) -> Response:
    """Serve one API request, and remember it."""
    box: Sandbox = request.app.state.box
    method, key = request.method.lower(), request.headers.get("idempotency-key", "")
    key = key if method in ("post", "delete") else ""
    entry = Entry(id=f"req_{secrets.token_hex(8)}", method=method, path=request.url.path, idempotency_key=key)
    box.journal.add(entry)
    headers = {"request-id": entry.id, "stripe-version": API_VERSION, "x-simulated": "true"}
    if key:
        headers["idempotency-key"] = key
    fault = None
    try:
        _authorize(box, request)
        params = parse_form(request.url.query if method in ("get", "delete") else await _body(request))
        entry.params = without_card_data(params)
        call = Call(method=method, path=entry.path, params=params, idempotency_key=key, request_id=entry.id)
        box.keys.begin(key)
        try:
            fault = box.faults.take(method, entry.path)
            entry.fault = fault.kind if fault is not None else ""
            answer, origin = await _served(box, call, fault)
        finally:
            box.keys.end(key)
        if origin:
            entry.replayed = True
            headers |= {"idempotent-replayed": "true", "original-request": origin}
    except _Lost:
        return HangUp()
    except StripeError as error:
        answer = Answer(status=error.status, body=error.body)
    if fault is not None and fault.kind is Kind.LOSE_RESPONSE:
        return HangUp()
    if fault is not None and fault.retry_after:
        headers["retry-after"] = fault.retry_after
    entry.status = answer.status
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)


class _Lost(Exception):
    """The request is lost before any work is done."""


async def _served(box: Sandbox, call: Call, fault: Fault | None) -> tuple[Answer, str]:
    """Do a request's work, with the fault that it meets on the way."""
    if fault is None:
        return box.serve(call, None)
    match fault.kind:
        case Kind.REFUSE:
            raise _Lost
        case Kind.DELAY if fault.after:
            served = box.serve(call, None)
            await asyncio.sleep(fault.delay_seconds)
            return served
        case Kind.DELAY:
            await asyncio.sleep(fault.delay_seconds)
        case Kind.ERROR if fault.status < 500 or call.method == "get":
            raise error_of(fault)
    return box.serve(call, fault if fault.kind is Kind.ERROR else None)


def _authorize(box: Sandbox, request: Request) -> None:
    """Check the credentials, and that the sandbox speaks what the client asks for."""
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not given:
        raise invalid("You did not provide an API key: send it as `Authorization: Bearer …`.", status=401)
    if not hmac.compare_digest(given.encode(), box.settings.api_key.get_secret_value().encode()):
        raise invalid("Invalid API Key provided.", status=401)
    version = request.headers.get("stripe-version", API_VERSION)
    if version != API_VERSION:
        raise invalid(f"Invalid Stripe API version: {version[:40]}. The sandbox speaks {API_VERSION}.")
    if "stripe-account" in request.headers:
        raise StripeError(501, "api_error", "The sandbox does not serve Connect (the header Stripe-Account).")


async def _body(request: Request) -> str:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise invalid("The request body is too large.", status=413)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise invalid("The request body is not UTF-8.") from error


async def _crashed(_: Request, __: Exception) -> Response:
    error = StripeError(500, "api_error", "An error of the sandbox itself; its log says which.")
    return JSONResponse(error.body, status_code=500, headers={"x-simulated": "true"})


def make_app(settings: Settings) -> Starlette:
    """Put the sandbox together."""
    store = Store(settings.data_dir)
    clock = Clock(store)
    events = Events(store, clock, settings)
    base_url = f"http://{settings.host}:{settings.port}"
    desk = Desk(store=store, clock=clock, ledger=Ledger(store, clock), events=events, base_url=base_url)
    box = Sandbox(settings=settings, desk=desk, routes=Routes(desk), keys=Keys(store, clock))

    async def tick() -> None:
        while True:
            box.tick()
            await asyncio.sleep(TICK_SECONDS)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(events.deliver()), asyncio.create_task(tick())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store.db.close()

    verbs = ["GET", "POST", "DELETE"]
    app = Starlette(
        routes=[
            Route("/_sandbox/{name:path}", control, methods=verbs),
            Route("/{path:path}", api, methods=verbs),
        ],
        exception_handlers={500: _crashed},
        lifespan=lifespan,
    )
    app.state.box = box
    return app
