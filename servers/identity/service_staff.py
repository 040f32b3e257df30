"""Staff, for whoever runs the platform on its machine: proto in, use case, proto out."""

from __future__ import annotations

from typing import Any

from paymesh.identity.v1 import staff_pb2, staff_pb2_grpc

from servers.identity import store, usecases
from servers.identity.render import staff_message
from servers.identity.usecases import Deps
from servers.runtime.pagination import Pages


class StaffService(staff_pb2_grpc.StaffServiceServicer):
    """Who works for the platform."""

    def __init__(self, deps: Deps, pages: Pages) -> None:
        self._deps = deps
        self._pages = pages

    async def SetStaffRole(
        self, request: staff_pb2.SetStaffRoleRequest, context: Any
    ) -> staff_pb2.SetStaffRoleResponse:
        """Give a user a staff role."""
        member, uri = await usecases.set_staff_role(
            self._deps, email=request.email, role=request.role, new_secret=request.new_secret
        )
        return staff_pb2.SetStaffRoleResponse(staff_member=staff_message(member), totp_uri=uri)

    async def RemoveStaffRole(self, request: staff_pb2.RemoveStaffRoleRequest, context: Any) -> staff_pb2.StaffMember:
        """Take a user's staff role away."""
        return staff_message(await usecases.remove_staff_role(self._deps, email=request.email))

    async def ListStaff(self, request: staff_pb2.ListStaffRequest, context: Any) -> staff_pb2.ListStaffResponse:
        """List the staff."""
        page = self._pages.read(request)
        async with self._deps.db.read() as conn:
            found = await store.staff(conn, before=page.before, limit=page.size + 1)
        return staff_pb2.ListStaffResponse(
            staff_members=[staff_message(member) for member in found[: page.size]],
            next_page_token=self._pages.token(request, [member.user_id for member in found], page.size),
        )
