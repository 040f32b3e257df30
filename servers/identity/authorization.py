"""The edge's question whether an API key holds (`envoy.service.auth.v3`). No answer means no: the edge fails closed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from envoy.type.v3 import http_status_pb2
from google.protobuf.json_format import MessageToJson
from google.rpc import code_pb2, status_pb2

from servers.identity import store
from servers.identity.domain import ApiKey, ApiKeyState
from servers.identity.tokens import Secrets, principal_header
from servers.runtime.call import CredentialInvalid
from servers.runtime.db import Database
from servers.runtime.grpc_errors import status_of
from servers.runtime.interceptor import PRINCIPAL_HEADER

KEY_HEADER: Final = "x-paymesh-key"
CACHE_SECONDS: Final = 0.9  # a revocation is seen within one second
CACHE_MAX: Final = 10_000
FLUSH_SECONDS: Final = 5.0


class AuthorizationService(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc]  # xds-protos is untyped
    """Answers the edge."""

    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets
        self._cache: OrderedDict[bytes, tuple[float, ApiKey | None]] = OrderedDict()
        self._used: dict[str, tuple[str, datetime]] = {}

    async def Check(self, request: Any, context: Any) -> Any:
        """Return the key's principal as a header, or 401."""
        scheme, _, secret = request.attributes.request.http.headers.get("authorization", "").partition(" ")
        key = await self._find(secret) if scheme.lower() == "bearer" and secret else None
        now = self._db.clock.now()
        expired = key is not None and key.expire_time is not None and key.expire_time <= now
        if key is None or expired or key.state is not ApiKeyState.ACTIVE:
            return _denied()
        self._used[key.id] = (key.merchant_id, now)
        # The second one is for the edge's own limit of each key.
        headers = [
            base_pb2.HeaderValueOption(
                header=base_pb2.HeaderValue(key=name, value=value),
                append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for name, value in ((PRINCIPAL_HEADER, principal_header(key)), (KEY_HEADER, key.id))
        ]
        return external_auth_pb2.CheckResponse(
            status=status_pb2.Status(code=code_pb2.OK),
            ok_response=external_auth_pb2.OkHttpResponse(headers=headers, headers_to_remove=["authorization"]),
        )

    async def _find(self, secret: str) -> ApiKey | None:
        hashed = self._secrets.hash(secret)
        cached = self._cache.get(hashed)
        now = self._db.clock.monotonic()
        if cached is not None and now - cached[0] < CACHE_SECONDS:
            return cached[1]
        async with self._db.read() as conn:
            key = await store.api_key_by_hash(conn, hashed)
        self._cache[hashed] = (now, key)
        self._cache.move_to_end(hashed)
        if len(self._cache) > CACHE_MAX:
            self._cache.popitem(last=False)
        return key

    async def flush(self) -> None:
        """Note when keys were last used, in bulk, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            used, self._used = self._used, {}
            if used:
                async with self._db.uow() as uow:
                    await store.touch_api_keys(uow.conn, used)


def _denied() -> Any:
    status = status_of(CredentialInvalid())
    body = MessageToJson(status, preserving_proto_field_name=True)
    return external_auth_pb2.CheckResponse(
        status=status_pb2.Status(code=code_pb2.UNAUTHENTICATED),
        denied_response=external_auth_pb2.DeniedHttpResponse(
            status=http_status_pb2.HttpStatus(code=http_status_pb2.Unauthorized),
            headers=[
                base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key="content-type", value="application/json"))
            ],
            body=body,
        ),
    )
