"""`paymesh staff`: who works for the platform. Nobody becomes staff from outside of its machine."""

from __future__ import annotations

from typing import Annotated

import typer

from paymesh_cli.operator import SECONDS, channel_to

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command(name="set")
def set_role(
    email: str,
    role: Annotated[str, typer.Argument(help="operator, risk, support or finance")],
    new_secret: Annotated[bool, typer.Option("--new-secret", help="in place of one that is lost")] = False,
) -> None:
    """Give a registered user a role; the first time with the secret of their authenticator app, shown this once."""
    from paymesh.identity.v1 import staff_pb2, staff_pb2_grpc

    request = staff_pb2.SetStaffRoleRequest(email=email, role=role, new_secret=new_secret)
    with channel_to("identity") as channel:
        answer = staff_pb2_grpc.StaffServiceStub(channel).SetStaffRole(request, timeout=SECONDS)
    print(f"{answer.staff_member.user_id} is {answer.staff_member.role}")
    if answer.totp_uri:
        print(f"for the authenticator app: {answer.totp_uri}")


@app.command()
def remove(email: str) -> None:
    """Take a user's role away."""
    from paymesh.identity.v1 import staff_pb2, staff_pb2_grpc

    with channel_to("identity") as channel:
        stub = staff_pb2_grpc.StaffServiceStub(channel)
        member = stub.RemoveStaffRole(staff_pb2.RemoveStaffRoleRequest(email=email), timeout=SECONDS)
    print(f"{member.user_id} is no {member.role} any more; their access ends within 15 minutes")


@app.command(name="list")
def list_staff() -> None:
    """List who has, or had, a role."""
    from paymesh.identity.v1 import staff_pb2, staff_pb2_grpc

    with channel_to("identity") as channel:
        stub = staff_pb2_grpc.StaffServiceStub(channel)
        found = stub.ListStaff(staff_pb2.ListStaffRequest(page_size=1000), timeout=SECONDS)
    for member in found.staff_members:
        state = staff_pb2.StaffMember.State.Name(member.state).lower()
        print(f"{member.user_id}  {member.role:<9} {state:<8} {member.email}")
