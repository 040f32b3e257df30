"""`/_sandbox/…`: the switches of tests and the cardholder's 3-D Secure page."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from sandbox.stripe import banks, pages
from sandbox.stripe.desk import Declined
from sandbox.stripe.mishaps import Kind
from sandbox.stripe.switches import SWITCHES
from sandbox.stripe.three_d_secure import way_back
from sandbox.stripe.wire import Json, StripeError

if TYPE_CHECKING:
    from sandbox.stripe.app import Sandbox

LOOPBACK = frozenset({"127.0.0.1", "::1"})


async def control(request: Request) -> Response:
    """Serve a switch, to this machine only."""
    if request.client is None or request.client.host not in LOOPBACK:
        return JSONResponse({"error": "the switches answer on loopback only"}, status_code=403)
    box: Sandbox = request.app.state.box
    words = request.path_params["name"].split("/")
    text = (await request.body()).decode()
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    try:
        match request.method, words:
            case "GET", [("payment_intents" | "setup_intents") as kind, intent, "authenticate"]:
                return _challenge(box, kind, intent)
            case "POST", [("payment_intents" | "setup_intents") as kind, intent, "authenticate"]:
                body = {"succeed": parse_qs(text).get("succeed") == ["true"]} if is_form else json.loads(text or "{}")
                return _authenticate(box, kind, intent, succeed=bool(body.get("succeed", True)), is_page=is_form)
            case "GET", ["log"]:
                asked = request.query_params
                entries = box.journal.read(method=asked.get("method", ""), path=asked.get("path", ""))
                return JSONResponse({"requests": entries})
            case "POST", ["webhooks", "invent"]:
                return JSONResponse(await _invent(box, json.loads(text or "{}")))
            case "GET", _:
                return _read(box, words)
        return _switch(box, request.method, words, json.loads(text or "{}"))
    except StripeError as error:
        return JSONResponse(error.body, status_code=error.status)
    except (KeyError, TypeError, ValueError, re.error) as error:
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, status_code=400)


async def _invent(box: Sandbox, body: Json) -> Json:
    """Send an event that never happened. Raises KeyError or ValueError for one that makes no sense."""
    signature = body.get("signature", "true")
    how = None if signature == "true" else Kind(signature)
    if how not in (None, Kind.FORGE, Kind.STALE):
        raise ValueError("the signature is true, forge or stale")
    return await box.desk.events.invent(str(body["type"]), dict(body["object"]), how)


def _read(box: Sandbox, words: list[str]) -> Response:
    match words:
        case [""]:
            return JSONResponse({"switches": [asdict(switch) for switch in SWITCHES]})
        case ["healthz"]:
            return JSONResponse({"status": "ok"})
        case ["clock"]:
            return JSONResponse({"now": box.desk.clock.now()})
        case ["weather"]:
            return JSONResponse(box.desk.events.weather.report())
        case ["ledger"]:
            return JSONResponse(box.desk.ledger.export())
        case ["faults"]:
            return JSONResponse({"requests": box.faults.left(), "webhooks": box.desk.events.mishaps.left()})
        case ["stats"]:
            stats = {"requests": dict(box.requests), "refunds": box.desk.store.count("refund")}
            return JSONResponse({"paid_charges": box.desk.store.paid_charges(), **stats})
    return JSONResponse({"error": f"no switch GET {'/'.join(words)}"}, status_code=404)


def _switch(box: Sandbox, method: str, words: list[str], body: Json) -> Response:
    answer: Any = {"ok": True}
    match method, words:
        case "POST", ["faults"]:
            box.faults.add(body)
        case "DELETE", ["faults"]:
            box.faults.clear()
            box.desk.events.mishaps.clear()
            box.desk.events.weather.clear()
            box.routes.refunds.plans.clear()
        case "DELETE", ["log"]:
            box.journal.clear()
        case "POST", ["webhooks", "faults"]:
            box.desk.events.mishaps.add(body)
        case "POST", ["webhooks"]:
            events = box.desk.events
            events.paused = bool(body.get("paused", events.paused))
            events.copies = int(body.get("copies", events.copies))
            events.delay_seconds = float(body.get("delay_seconds", events.delay_seconds))
            events.is_reordered = bool(body.get("reorder", events.is_reordered))
            events.wake()
        case "POST", ["events", event_id, "resend"]:
            box.desk.load("event", event_id, "id")
            box.desk.events.resend(event_id)
        case "POST", ["clock"]:
            now = box.desk.clock.now()
            answer = {"now": box.travel(int(body.get("advance_seconds", int(body.get("now", now)) - now)))}
        case "POST", ["weather"]:
            box.desk.events.weather.change(body)
            answer = box.desk.events.weather.report()
        case "DELETE", ["weather"]:
            box.desk.events.weather.clear()
        case "POST", ["limits"]:
            box.limits.reads.set(float(body.get("reads_per_second", box.limits.reads.per_second)))
            box.limits.writes.set(float(body.get("writes_per_second", box.limits.writes.per_second)))
        case "POST", [kind] if make := banks.MAKES.get(kind):
            with box.desk.store.transaction():
                answer = make(box.routes, body)
        case "POST", [kind, identifier, verb] if act := banks.VERBS.get((kind, verb)):
            with box.desk.store.transaction():
                answer = act(box.routes, identifier, body)
        case _:
            return JSONResponse({"error": f"no switch {method} {'/'.join(words)}"}, status_code=404)
    return JSONResponse(answer)


def _challenge(box: Sandbox, kind: str, identifier: str) -> Response:
    """The page of the cardholder's bank: what `next_action` points to."""
    intent = box.desk.load(kind.removesuffix("s"), identifier, "intent")
    if intent["status"] != "requires_action":
        return _over(intent)
    return _page(pages.challenge(intent, box.routes.methods.get(intent["payment_method"])["card"]))


def _over(intent: Json) -> Response:
    return _page(pages.over(intent))


def _page(text: str) -> Response:
    # No script and nothing from elsewhere; the shop may show it in a frame, as banks' pages are.
    return HTMLResponse(text, headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"})


def _authenticate(box: Sandbox, kind: str, identifier: str, *, succeed: bool, is_page: bool) -> Response:
    intents = box.routes.intents if kind == "payment_intents" else box.routes.setups
    found = box.desk.load(kind.removesuffix("s"), identifier, "intent")
    if is_page and found["status"] != "requires_action":
        return _over(found)  # the button was pressed twice
    redirect = (found["next_action"] or {}).get("redirect_to_url") or {}
    with box.desk.store.transaction():
        try:
            answer = intents.authenticate(identifier, succeed=succeed)
        except Declined as declined:
            answer = declined.error.body["error"][kind.removesuffix("s")]
    if not is_page:
        return JSONResponse(answer)
    if not redirect.get("return_url"):
        return _over(answer)
    return RedirectResponse(way_back(redirect["return_url"], answer), status_code=303)
