"""The one interceptor. In order: errors, trace, deadline, peer and principal, scope, validation, metrics.

One, because four cost a fifth of the throughput. It is a security control: grpc.aio tells the caller the text of any exception
that leaves a handler.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from typing import Any, Final

import grpc
import protovalidate
import structlog
from google.protobuf.message import Message
from google.rpc import status_pb2
from prometheus_client import Counter, Histogram
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from servers.kernel.errors import ConcurrentUpdate, FieldInvalid, FieldViolation, Kind, Refusal
from servers.runtime.call import (
    ANONYMOUS,
    Call,
    CredentialInvalid,
    Principal,
    PrincipalKind,
    decode_principal,
    set_current_call,
)
from servers.runtime.card_numbers import LOOKS_LIKE_A_CARD, holds_card_number, unfit_texts
from servers.runtime.db import Database
from servers.runtime.grpc_errors import abort, deadline_status, internal_status, status_of, unknown_method_status
from servers.runtime.idempotency import Rehearsed, Replayed
from servers.runtime.policy import ANY_PEER, EDGE, FOREIGN, MethodPolicy
from servers.runtime.telemetry import span_of_call
from servers.runtime.timers import Timers

DEADLINE_SECONDS: Final = 15.0
DEADLINE_SECONDS_MAX: Final = 60.0
CALLS_MAX: Final = 256
"""How many calls a server works on at once. One more would wait for longer than its caller does: it is turned away while asking
again is still cheap, and what has begun is finished in time."""
PRINCIPAL_HEADER: Final = "x-paymesh-principal"
BEHALF_HEADER: Final = "x-paymesh-on-behalf-of"
SPIFFE: Final = "spiffe://paymesh/"
_SPIFFE: Final = SPIFFE.encode()

_log = structlog.get_logger("rpc")
_seconds = Histogram("paymesh_rpc_seconds", "Time to serve a call", ["method"])
_served = Counter("paymesh_rpc_total", "Calls served", ["method", "code", "reason"])

ServicerContext = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, ServicerContext], Coroutine[Any, Any, Any]]


class CallerNotAllowed(Refusal):
    """This kind of caller may not use the method."""

    kind = Kind.DENIED
    reason = "CALLER_NOT_ALLOWED"

    def __init__(self, method: str) -> None:
        super().__init__("This kind of caller may not use the method.", metadata={"method": method})


class ScopeMissing(Refusal):
    """The credential does not carry the scope."""

    kind = Kind.DENIED
    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__(f"The credential lacks the scope {scope}.", metadata={"required_scope": scope})


class Overloaded(Refusal):
    """The server sheds the call before it waits too long."""

    kind = Kind.EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("The server is busy; ask again a little later.", retry_after_seconds=1.0)


class DatabaseUnavailable(Refusal):
    """The database is away; nothing was done that is not safe to repeat with the same key."""

    kind = Kind.UNAVAILABLE
    reason = "PEER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The server cannot work right now; ask again with the same key.", retry_after_seconds=1.0)


class Interceptor(grpc.GenericRpcHandler):
    """Stands in front of every method: the services are added to it, and it is the server's only handler.

    Not a `grpc.aio.ServerInterceptor`: that is a coroutine more for each call, a tenth of what a call costs (measured).
    """

    def __init__(self, policies: Mapping[str, MethodPolicy], db: Database) -> None:
        self._policies = policies
        self._db = db
        self._running: set[asyncio.Task[Any]] = set()
        self._serving = 0
        self._timers = Timers()
        self._handlers: dict[str, Any] = {}
        self._unknown: Any = grpc.unary_unary_rpc_method_handler(_refuse_unknown)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What generated code calls first, for a server that asks handlers; here they come by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Put everything around a service's methods. One without a policy does not exist for anybody: fail closed."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            if (policy := self._policies.get(method)) is not None:
                guard = self._wrap if handler.unary_unary is not None else _guard_stream
                self._handlers[method] = guard(handler, policy)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a method."""
        return self._handlers.get(details.method, self._unknown)

    async def drain(self) -> None:
        """Wait for handlers that outlived their callers."""
        if self._running:
            await asyncio.wait(self._running)

    def _wrap(self, handler: Any, policy: MethodPolicy) -> Any:
        serialize, behaviour = handler.response_serializer, handler.unary_unary
        seconds, good = _seconds.labels(policy.method), _served.labels(policy.method, "OK", "")

        async def serve(request: Any, context: ServicerContext) -> Any:
            began = time.perf_counter()
            served = good
            self._serving += 1
            try:
                metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
                with span_of_call(policy.method, metadata):
                    answer, status = await self._answer(behaviour, policy, request, context, metadata)
                if status is None:
                    return answer
                served = _served.labels(policy.method, grpc.StatusCode(_code(status)).name, _reason(status))
                await abort(context, status)
            finally:
                self._serving -= 1
                seconds.observe(time.perf_counter() - began)
                served.inc()

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=handler.request_deserializer,
            # A replayed answer is the stored bytes themselves, so that it is the same to the byte.
            response_serializer=lambda response: response if isinstance(response, bytes) else serialize(response),
        )

    async def _answer(
        self,
        handler: Handler,
        policy: MethodPolicy,
        request: Any,
        context: ServicerContext,
        metadata: dict[str, str],
    ) -> tuple[Any, status_pb2.Status | None]:
        call: Call | None = None
        try:
            # Not what the mesh asks: a server that is busy is neither ill, nor does it cut off whoever asks it about a token.
            if self._serving > CALLS_MAX and policy.method not in FOREIGN:
                raise Overloaded
            call = _admit(policy, context, metadata)
            set_current_call(call)
            _validate(request)
            # Not in what the edge itself asks: its requests carry long numbers of its own.
            if call.peer == EDGE and call.method not in FOREIGN:
                _refuse_unfit_texts(request, call.idempotency_key)
            return await self._run(handler, policy, request, context), None
        except Replayed as replayed:
            await context.send_initial_metadata((("idempotent-replayed", "true"),))
            if replayed.refused:
                return None, status_pb2.Status.FromString(replayed.answer)
            return replayed.answer, None
        except Rehearsed as rehearsed:
            return rehearsed.answer, None
        except Refusal as refusal:
            _log.info("call.refused", reason=refusal.reason, **refusal.metadata)
            await self._release(call)
            return None, status_of(refusal)
        except TimeoutError:
            _log.warning("call.deadline_passed")
            return None, deadline_status()
        except (PoolTimeout, DBAPIError) as error:
            _log.warning("call.database_failed", error=str(error.__cause__ or error).splitlines()[0])
            await self._release(call)
            return None, status_of(_database_refusal(error))
        except Exception:
            # The door to the outside: whatever went wrong, the caller learns only the request id.
            _log.exception("call.failed")
            await self._release(call)
            return None, internal_status()

    async def _run(self, handler: Handler, policy: MethodPolicy, request: Any, context: ServicerContext) -> Any:
        """Run the handler to its end, even where its caller hangs up or its deadline passes.

        A handler that is torn apart between the provider's answer and its own second transaction would leave an outcome
        to the janitor that it already holds in its hands. Its own waits are bounded, so it ends. Where the caller's ids make
        a repeat harmless there is nothing to protect: such a handler ends with its caller, and costs no task.
        """
        remaining = context.time_remaining()
        seconds = min(remaining if remaining is not None else DEADLINE_SECONDS, DEADLINE_SECONDS_MAX)
        if policy.repeatable:
            return await self._within(seconds, handler(request, context))
        loop = asyncio.get_running_loop()
        task = loop.create_task(handler(request, context))
        ended: asyncio.Future[bool] = loop.create_future()

        def note(done: asyncio.Task[Any]) -> None:
            self._running.discard(done)
            if not done.cancelled():
                done.exception()  # retrieved, so that one whose caller has left is not reported as forgotten
            if not ended.done():
                ended.set_result(True)

        def expire() -> None:
            if not ended.done():
                ended.set_result(False)

        self._running.add(task)
        task.add_done_callback(note)
        call_off = self._timers.call_later(seconds, expire)
        try:
            # A future of its own, not the task: what cancels the call cancels only the waiting.
            if not await ended:
                raise TimeoutError
        finally:
            call_off()
        return task.result()

    async def _within(self, seconds: float, answer: Coroutine[Any, Any, Any]) -> Any:
        """Run in the call's own task; raises TimeoutError. What `asyncio.timeout` does, with a timer that costs next to nothing."""
        task = asyncio.current_task()
        assert task is not None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        call_off = self._timers.call_later(seconds, expire)
        try:
            return await answer
        except asyncio.CancelledError:
            if expired and not task.uncancel():
                raise TimeoutError from None
            raise
        finally:
            call_off()

    async def _release(self, call: Call | None) -> None:
        """Give the keys back of a call that failed in a way which trying again may cure."""
        if call is None or not any(request.key for request in call.claims):
            return
        try:
            async with self._db.uow() as uow:
                for request in call.claims:
                    uow.idempotency.release(request)
        except (PoolTimeout, DBAPIError):
            return  # the lease ends by itself


def _admit(policy: MethodPolicy, context: ServicerContext, metadata: dict[str, str]) -> Call:
    peer = peer_name(context)
    if not peer or (peer not in policy.callers and ANY_PEER not in policy.callers):
        raise CallerNotAllowed(policy.method)
    principal = _principal(policy, peer, metadata)
    if principal.kind not in policy.audience and PrincipalKind.PUBLIC not in policy.audience:
        if principal.kind is PrincipalKind.PUBLIC:
            raise CredentialInvalid
        raise CallerNotAllowed(policy.method)
    if policy.scope and policy.scope not in principal.scopes:
        raise ScopeMissing(policy.scope)
    return Call(
        method=policy.method,
        peer=peer,
        principal=principal,
        request_id=metadata.get("x-request-id", ""),
        idempotency_key=metadata.get("idempotency-key", ""),
        key_required=policy.key_required,
        metadata=metadata,
    )


def peer_name(context: ServicerContext) -> str:
    """Return the last segment of the peer's SPIFFE id, or "" for a certificate that is none of the mesh's."""
    # The peer's identities are its alternative names, or, where it has none, its common name, which proves nothing to us.
    if context.peer_identity_key() != "x509_subject_alternative_name":
        return ""
    for name in context.peer_identities() or ():
        if name.startswith(_SPIFFE):
            return name[len(_SPIFFE) :].decode()
    return ""


def _principal(policy: MethodPolicy, peer: str, metadata: dict[str, str]) -> Principal:
    if peer == EDGE:
        if header := metadata.get(PRINCIPAL_HEADER):
            return decode_principal(header)
        return ANONYMOUS
    if behalf := metadata.get(BEHALF_HEADER):
        if peer not in policy.on_behalf_of_callers:
            raise CallerNotAllowed(policy.method)
        return decode_principal(behalf)
    return _server(peer)


@cache
def _server(peer: str) -> Principal:
    """Return a server of the mesh as a principal; there are as many as the policies name callers."""
    return Principal(kind=PrincipalKind.SERVICE, subject=peer)


def _validate(request: Any) -> None:
    if not isinstance(request, Message):
        return
    violations = protovalidate.collect_violations(request)
    if violations:
        raise FieldInvalid(
            *(
                FieldViolation(
                    field=_path(violation.proto),
                    description=violation.proto.message,
                )
                for violation in violations
            )
        )


def _refuse_unfit_texts(request: Any, key: str) -> None:
    found = list(unfit_texts(request)) if isinstance(request, Message) else []
    if holds_card_number(key):
        found.append(("Idempotency-Key", LOOKS_LIKE_A_CARD))
    if found:
        raise FieldInvalid(*(FieldViolation(field=field, description=why) for field, why in found))


def _path(violation: Any) -> str:
    """Return the field that a violation is about; a rule of a whole message has an id that starts with its field."""
    if violation.field is None:
        return str(violation.rule_id).partition(".")[0]
    text = ""
    for element in violation.field.elements:
        text += f".{element.field_name}" if text else element.field_name
        match element.subscript:
            case None:
                pass
            case subscript:
                text += f"[{subscript.value}]"
    return text


def _database_refusal(error: Exception) -> Refusal:
    if isinstance(error, PoolTimeout):
        return Overloaded()
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    # 40001, 40P01 serialisation and deadlock, 55P03 lock time-out, 57014 statement time-out: nothing was written.
    if state in ("40001", "40P01", "55P03", "57014"):
        return ConcurrentUpdate("resource")
    return DatabaseUnavailable()


def _code(status: status_pb2.Status) -> Any:
    return next(code.value for code in grpc.StatusCode if code.value[0] == status.code)


def _reason(status: status_pb2.Status) -> str:
    from google.rpc import error_details_pb2

    info = error_details_pb2.ErrorInfo()
    return info.reason if status.details and status.details[0].Unpack(info) else ""


async def _refuse_unknown(request: bytes, context: ServicerContext) -> None:
    await abort(context, unknown_method_status())


def _guard_stream(handler: Any, policy: MethodPolicy) -> Any:
    """Let only the policy's callers stream: the streaming services that are served here are not ours (health, reflection)."""

    def allowed(context: ServicerContext) -> bool:
        peer = peer_name(context)
        return bool(peer) and (ANY_PEER in policy.callers or peer in policy.callers)

    async def stream_stream(requests: Any, context: ServicerContext) -> Any:
        if not allowed(context):
            await abort(context, status_of(CallerNotAllowed(policy.method)))
        async for response in handler.stream_stream(requests, context):
            yield response

    async def unary_stream(request: Any, context: ServicerContext) -> Any:
        if not allowed(context):
            await abort(context, status_of(CallerNotAllowed(policy.method)))
        async for response in handler.unary_stream(request, context):
            yield response

    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(
        stream_stream if handler.request_streaming else unary_stream,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
