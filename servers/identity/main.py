"""The identity server: what it consists of."""

from __future__ import annotations

from envoy.service.auth.v3 import external_auth_pb2_grpc
from paymesh.identity.v1 import identity_pb2, identity_pb2_grpc, staff_pb2, staff_pb2_grpc

from servers.identity.authorization import AuthorizationService
from servers.identity.jobs import jobs
from servers.identity.passwords import Passwords
from servers.identity.service import IdentityDirectoryService, IdentityService
from servers.identity.service_staff import StaffService
from servers.identity.settings import IdentitySettings
from servers.identity.tokens import Secrets, Signer
from servers.identity.usecases import Deps
from servers.runtime.app import Context, Parts, Server, Service


async def build(context: Context[IdentitySettings]) -> Parts:
    """Put the parts together."""
    settings = context.settings
    secrets = Secrets(settings.api_key_pepper.get_secret_value())
    deps = Deps(
        db=context.db,
        clock=context.clock,
        passwords=Passwords(settings.password_pepper.get_secret_value(), cost=settings.bcrypt_cost),
        signer=Signer(
            settings.jwt_keys_dir, issuer=settings.jwt_issuer, audience=settings.jwt_audience, clock=context.clock
        ),
        secrets=secrets,
        throttle=context.throttle,
        livemode=settings.livemode,
    )
    service = Service(
        servicer=IdentityService(deps, context.pages),
        add=identity_pb2_grpc.add_IdentityServiceServicer_to_server,
        descriptor=identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
    )
    directory = Service(
        servicer=IdentityDirectoryService(deps),
        add=identity_pb2_grpc.add_IdentityDirectoryServiceServicer_to_server,
        descriptor=identity_pb2.DESCRIPTOR.services_by_name["IdentityDirectoryService"],
    )
    staff = Service(
        servicer=StaffService(deps, context.pages),
        add=staff_pb2_grpc.add_StaffServiceServicer_to_server,
        descriptor=staff_pb2.DESCRIPTOR.services_by_name["StaffService"],
    )
    checker = AuthorizationService(context.db, secrets)
    edge = Service(servicer=checker, add=external_auth_pb2_grpc.add_AuthorizationServicer_to_server, descriptor=None)
    return Parts(
        services=[service, directory, staff, edge],
        jobs=jobs(deps),
        tasks=[checker.flush, deps.signer.keep_fresh],
    )


SERVER = Server(domain="identity", settings=IdentitySettings, build=build)
