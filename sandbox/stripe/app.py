"""What stands between the wire and the work: credentials, idempotency, faults, one transaction per request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.stripe.clock import Clock
from sandbox.stripe.control import control
from sandbox.stripe.desk import Declined, Desk
from sandbox.stripe.events import Events
from sandbox.stripe.faults import Cut, Fault, Faults, HangUp, Kind, Trickle, error_of
from sandbox.stripe.files import MEDIA_TYPES
from sandbox.stripe.idempotency import Keys
from sandbox.stripe.journal import Entry, Journal, without_card_data
from sandbox.stripe.ledger import Ledger
from sandbox.stripe.limits import Limits
from sandbox.stripe.lists import expanded
from sandbox.stripe.routes import Endpoint, Routes
from sandbox.stripe.schema import Schema
from sandbox.stripe.settings import API_VERSION, Settings
from sandbox.stripe.store import Store
from sandbox.stripe.wire import (
    MAX_BODY_BYTES,
    MAX_UPLOAD_BYTES,
    Answer,
    Call,
    Json,
    StripeError,
    invalid,
    parse_form,
    parse_multipart,
)

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
    limits: Limits = field(default_factory=Limits)
    journal: Journal = field(default_factory=Journal)
    requests: Counter[str] = field(default_factory=Counter)

    def fault(self, call: Call) -> Fault | None:
        """Return what goes wrong with a request, if anything: what a rule says, else what the weather brings."""
        if fault := self.faults.take(call.method, call.path):
            return fault
        found = self.routes.find(call.method, call.path)
        return self.desk.events.weather.request(f"{call.method} {found[0].path}") if found else None

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
        while due := self._next_due():
            _, identifier, kind = due
            with self.desk.store.transaction():
                self.desk.forget(kind, identifier)
                # What ended meanwhile has nothing due any more, nor has what an older sandbox noted.
                with suppress(StripeError), self.desk.store.attempt():
                    if act := acts.get(kind):
                        act(identifier)

    def travel(self, seconds: int) -> int:
        """Move the business clock, and do on the way what becomes due, each at its own time. Returns the present second."""
        if seconds < 0:
            return self.desk.clock.advance(seconds)  # which refuses
        target = self.desk.clock.now() + seconds
        while (due := self._next_due(before=target)) is not None:
            self.desk.clock.advance(max(0, due[0] - self.desk.clock.now()))
            self.tick()
        return self.desk.clock.advance(max(0, target - self.desk.clock.now()))

    def _next_due(self, *, before: int | None = None) -> tuple[int, str, str] | None:
        """Return the next reminder that is due: its time, its object and its kind."""
        moment = self.desk.clock.now() if before is None else before
        row = self.desk.store.db.execute(
            "SELECT due, object_id, kind FROM timers WHERE due <= ? ORDER BY due, rowid LIMIT 1", (moment,)
        ).fetchone()
        return None if row is None else (int(row[0]), str(row[1]), str(row[2]))

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
        scope = _scope(box, request)
        box.limits.check(method)
        params = await _params(request)
        entry.params = without_card_data(params)
        call = Call(
            method=method,
            path=entry.path,
            params=params,
            idempotency_key=key,
            key_scope=scope,
            request_id=entry.id,
        )
        box.keys.begin(call)
        try:
            fault = box.fault(call)
            entry.fault = fault.kind if fault is not None else ""
            answer, origin = await _served(box, call, fault)
        finally:
            box.keys.end(call)
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
    return _told(answer, headers, fault)


def _told(answer: Answer, headers: dict[str, str], fault: Fault | None) -> Response:
    """Return what goes over the wire: the answer, mostly."""
    body = fault.lie.tell(answer.body) if fault is not None and answer.status == 200 else answer.body
    response = JSONResponse(body, status_code=answer.status, headers=headers)
    if fault is not None and fault.kind is Kind.TRICKLE:
        return Trickle(response, fault.delay_seconds)
    return Cut(response) if fault is not None and fault.kind is Kind.CUT else response


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


def _scope(box: Sandbox, request: Request) -> str:
    """Check the credentials, and that the sandbox speaks what the client asks for. Returns what the API key's idempotency keys
    begin with: each API key has its own, and the first none."""
    given = _credentials(request.headers.get("authorization", ""))
    if not given:
        raise invalid("You did not provide an API key: send it as `Authorization: Bearer …`.", status=401)
    known = box.settings.api_key.get_secret_value().split(",")
    matching = [hmac.compare_digest(given.encode(), one.strip().encode()) for one in known]
    if not any(matching):
        raise invalid("Invalid API Key provided.", status=401)
    version = request.headers.get("stripe-version", API_VERSION)
    if version != API_VERSION:
        raise invalid(f"Invalid Stripe API version: {version[:40]}. The sandbox speaks {API_VERSION}.")
    if "stripe-account" in request.headers:
        raise StripeError(501, "api_error", "The sandbox does not serve Connect (the header Stripe-Account).")
    return "" if matching[0] else f"{hashlib.sha256(given.encode()).hexdigest()[:16]}:"


def _credentials(header: str) -> str:
    """Return the API key: as a bearer's token, or as the name of `curl -u key:`."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return given if scheme.lower() == "bearer" else ""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


async def _params(request: Request) -> Json:
    """Return what a request gives, in its query or in its body."""
    if request.method in ("GET", "DELETE"):
        return parse_form(request.url.query)
    kind, _, boundary = request.headers.get("content-type", "").partition("boundary=")
    if kind.startswith("multipart/form-data"):
        return parse_multipart(await _body(request, MAX_UPLOAD_BYTES), boundary.strip('"'))
    try:
        return parse_form((await _body(request, MAX_BODY_BYTES)).decode())
    except UnicodeDecodeError as error:
        raise invalid("The request body is not UTF-8.") from error


async def _body(request: Request, most: int) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > most:
            raise invalid("The request body is too large.", status=413)
    return bytes(raw)


async def contents(request: Request) -> Response:
    """Serve what is in a file."""
    box: Sandbox = request.app.state.box
    try:
        _scope(box, request)
        found, body = box.routes.files.contents(request.path_params["file"])
    except StripeError as error:
        return JSONResponse(error.body, status_code=error.status)
    return Response(body, media_type=MEDIA_TYPES[found["type"]], headers={"x-simulated": "true"})


async def _crashed(_: Request, __: Exception) -> Response:
    error = StripeError(500, "api_error", "An error of the sandbox itself; its log says which.")
    return JSONResponse(error.body, status_code=500, headers={"x-simulated": "true"})


def assembled(settings: Settings) -> Sandbox:
    """Put the sandbox together."""
    store = Store(settings.data_dir)
    clock = Clock(store)
    events = Events(store, clock, settings)
    base_url = f"http://{settings.host}:{settings.port}"
    desk = Desk(store=store, clock=clock, ledger=Ledger(store, clock), events=events, base_url=base_url)
    box = Sandbox(settings=settings, desk=desk, routes=Routes(desk), keys=Keys(store, clock))
    box.limits.reads.set(settings.reads_per_second)
    box.limits.writes.set(settings.writes_per_second)
    return box


def make_app(settings: Settings) -> Starlette:
    """Serve it."""
    box = assembled(settings)
    store, events = box.desk.store, box.desk.events

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
            Route("/v1/files/{file}/contents", contents, methods=["GET"]),
            Route("/{path:path}", api, methods=verbs),
        ],
        exception_handlers={500: _crashed},
        lifespan=lifespan,
    )
    app.state.box = box
    return app
