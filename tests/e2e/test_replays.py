"""Every method that changes something, made from the descriptors: the same key gets the same answer to the byte, and no other
request. A new method needs its line in `CALLS`, or says in `BY_NATURE` why a repeat is harmless without a key."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from paymesh.identity.v1 import identity_pb2
from paymesh.notifications.v1 import notifications_pb2
from paymesh.options.v1 import options_pb2
from paymesh.payments.v1 import payments_pb2, top_ups_pb2
from paymesh.wallets.v1 import ledger_pb2, wallets_pb2

from dev.stack import REVIEW_ABOVE
from sandbox.stripe.events import signed
from servers.runtime.call import PrincipalKind
from servers.runtime.policy import policy_of
from tests.e2e.test_accounts import PASSWORD, Person, Team, act_for, log_in, person
from tests.e2e.test_conflicts import charged_by_a_stranger, conflicted
from tests.support.mail import mail_to, token_of
from tests.support.stack import Shop, insist, reason_of, wait_for
from tests.support.staff import Operator, colleague

FILES = (identity_pb2, payments_pb2, top_ups_pb2, wallets_pb2, ledger_pb2, notifications_pb2)
KEYED: Final = (options_pb2.IDEMPOTENCY_OPTIONAL, options_pb2.IDEMPOTENCY_REQUIRED)


def idempotency(method: MethodDescriptor) -> int:
    """Return what a method declares."""
    value: int = method.GetOptions().Extensions[options_pb2.idempotency]
    return value


METHODS = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if idempotency(method) != options_pb2.IDEMPOTENCY_READ_ONLY
]
INNER = [method for method in METHODS if policy_of(method).audience == {PrincipalKind.SERVICE}]
PUBLIC = [method for method in METHODS if method not in INNER]
BY_NATURE: Final = {
    "OpenEmailLink": "a page that a mail links to: browsers send no key, and its token works once",
    "ReceiveStripeWebhook": "an event carries its id",
    "CreateEmailToken": "of two tokens for a mail one is never sent; both work until their end",
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that succeeds, and what another one under its key says: a body, or a whole path. Neither: there is no other one,
    because the request has no more fields, or because what is in it is the key's scope."""

    path: str
    body: dict[str, Any] | None
    token: str = ""
    other: dict[str, Any] | None = None
    elsewhere: str = ""


@dataclass(frozen=True)
class World:
    """A shop, a team whose owner's address is verified, and new people where a call needs somebody who is spent by it."""

    shop: Shop
    team: Team

    def invited(self, *, verified: bool = True) -> tuple[Person, dict[str, Any]]:
        """Invite somebody."""
        somebody = person(self.shop).verified() if verified else person(self.shop)
        body = {"email": somebody.email, "role": "viewer"}
        return somebody, self.team.owner.ok("POST", f"{self.team.path}/members", body, token=self.team.token)

    def member(self) -> Person:
        """Return a member of the team."""
        somebody = person(self.shop).verified()
        self.team.join(somebody, "viewer")
        return somebody

    def api_key(self) -> str:
        """Return the path of a key of the team's."""
        body = {"display_name": "server", "scopes": ["balances:read"]}
        made = self.team.owner.ok("POST", "/v1/api_keys", body, token=self.team.token)
        return f"/v1/api_keys/{made['api_key']['id']}"

    def mandate(self) -> str:
        """Return the path of a mandate for the shop's merchant."""
        payment = self.shop.payment()
        body = {"payment_method_id": self.shop.card("pm_card_visa")["id"], "setup_future_usage": "OFF_SESSION"}
        path = f"/v1/payments/{payment['id']}:confirm"
        paid = self.shop.ok(self.shop.call("POST", path, body, token=self.shop.customer_token))
        card = paid["latest_attempt"]["payment_method_id"]
        query = f"/v1/mandates?payment_method_id={card}"
        held = self.shop.ok(self.shop.call("GET", query, token=self.shop.customer_token))
        return f"/v1/mandates/{held['mandates'][0]['id']}"

    def paid(self) -> str:
        """Return the path of a payment with money in it."""
        payment = self.shop.payment()
        self.shop.ok(self.shop.confirm(payment["id"]))
        return f"/v1/payments/{payment['id']}"

    def wallet(self) -> tuple[Person, str]:
        """Return somebody with a wallet in dollars, and its path."""
        somebody = person(self.shop)
        made = somebody.ok("POST", "/v1/wallets", {"currency": "USD"})
        return somebody, f"/v1/wallets/{made['id']}"


def usd(amount: int) -> dict[str, str]:
    """Return cents."""
    return {"amount_minor": str(amount), "currency": "USD"}


def another(path: str) -> str:
    """Return the path of a resource of the same kind that is somebody else's, or nobody's."""
    head, _, verb = path.partition(":")
    return f"{head[:-26]}{'0' * 26}" + (f":{verb}" if verb else "")


def register(world: World) -> Call:
    """Register somebody: the address is the key's scope."""
    body = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD, "display_name": "Ada"}
    return Call(path="/v1/users:register", body=body, other=body | {"display_name": "Eve"})


def create_session(world: World) -> Call:
    """Log in: the address is the key's scope, and without the password nobody learns what a key was used for."""
    return Call(path="/v1/sessions", body={"email": person(world.shop).email, "password": PASSWORD})


def refresh_session(world: World) -> Call:
    """Refresh a session."""
    return Call(path="/v1/sessions:refresh", body={"refresh_token": person(world.shop).refresh_token})


def switch_merchant(world: World) -> Call:
    """Act for a merchant."""
    merchant = world.team.merchant_id
    other = {"merchant_id": another(merchant)}
    path = "/v1/sessions:switch_merchant"
    return Call(path=path, body={"merchant_id": merchant}, token=world.team.owner.token, other=other)


def create_merchant(world: World) -> Call:
    """Create a merchant."""
    body = {"display_name": "Tea", "country": "US", "default_currency": "USD"}
    token = world.team.owner.token
    return Call(path="/v1/merchants", body=body, token=token, other=body | {"display_name": "Coffee"})


def verify_email(world: World) -> Call:
    """Verify an address."""
    token = token_of(mail_to(world.shop.platform, person(world.shop).email, "Verify"))
    return Call(path="/v1/users:verify_email", body={"token": token})


def request_email_verification(world: World) -> Call:
    """Ask for another mail."""
    return Call(path="/v1/users/me:request_email_verification", body={}, token=person(world.shop).token)


def request_password_reset(world: World) -> Call:
    """Ask for a mail: the address is the key's scope, and there is nothing else to say."""
    return Call(path="/v1/users:request_password_reset", body={"email": person(world.shop).email})


def reset_password(world: World) -> Call:
    """Set a new password: the token is the key's scope."""
    somebody = person(world.shop)
    world.shop.ok(world.shop.call("POST", "/v1/users:request_password_reset", {"email": somebody.email}))
    token = token_of(mail_to(world.shop.platform, somebody.email, "Set a new password"))
    body = {"token": token, "new_password": "quite another one"}
    return Call(path="/v1/users:reset_password", body=body, other=body | {"new_password": "yet another one"})


def change_password(world: World) -> Call:
    """Change a password."""
    body = {"current_password": PASSWORD, "new_password": "quite another one"}
    other = body | {"new_password": "yet another one"}
    return Call(path="/v1/users/me:change_password", body=body, token=person(world.shop).token, other=other)


def update_me(world: World) -> Call:
    """Change a name."""
    return Call(
        path="/v1/users/me", body={"display_name": "Ada"}, token=person(world.shop).token, other={"display_name": "Eve"}
    )


def delete_session(world: World) -> Call:
    """End a session."""
    somebody = person(world.shop)
    other = world.shop.ok(log_in(world.shop, somebody.email))
    sessions = somebody.ok("GET", "/v1/sessions")["sessions"]
    path = next(f"/v1/sessions/{one['id']}" for one in sessions if not one["current"])
    assert other["access_token"]
    return Call(path=path, body=None, token=somebody.token, elsewhere=another(path))


def update_merchant(world: World) -> Call:
    """Change a merchant's name."""
    return Call(
        path=world.team.path, body={"display_name": "T & S"}, token=world.team.token, other={"display_name": "S & T"}
    )


def invite_member(world: World) -> Call:
    """Invite somebody."""
    body = {"email": f"{uuid.uuid4().hex}@example.com", "role": "viewer"}
    path = f"{world.team.path}/members"
    return Call(path=path, body=body, token=world.team.token, other=body | {"role": "finance"})


def update_member(world: World) -> Call:
    """Change a role."""
    path = f"{world.team.path}/members/{world.member().user_id}"
    return Call(path=path, body={"role": "finance"}, token=world.team.token, other={"role": "admin"})


def remove_member(world: World) -> Call:
    """Remove somebody."""
    path = f"{world.team.path}/members/{world.member().user_id}"
    return Call(path=path, body=None, token=world.team.token, elsewhere=another(path))


def revoke_invitation(world: World) -> Call:
    """Take an invitation back."""
    path = f"{world.team.path}/invitations/{world.invited()[1]['id']}"
    return Call(path=path, body=None, token=world.team.token, elsewhere=another(path))


def answer_invitation(verb: str) -> Callable[[World], Call]:
    """Return the call of who was invited."""

    def answer(world: World) -> Call:
        somebody, invitation = world.invited()
        path = f"/v1/invitations/{invitation['id']}:{verb}"
        return Call(path=path, body={}, token=somebody.token, elsewhere=another(path))

    return answer


def create_api_key(world: World) -> Call:
    """Create a key."""
    body = {"display_name": "server", "scopes": ["balances:read"]}
    return Call(path="/v1/api_keys", body=body, token=world.team.token, other=body | {"display_name": "other"})


def revoke_api_key(world: World) -> Call:
    """Revoke a key."""
    path = world.api_key()
    return Call(path=path, body=None, token=world.team.token, elsewhere=another(path))


def rotate_api_key(world: World) -> Call:
    """Rotate a key."""
    path = f"{world.api_key()}:rotate"
    return Call(path=path, body={"grace_seconds": 5}, token=world.team.token, other={"grace_seconds": 6})


def create_payment_method(world: World) -> Call:
    """Save a card."""
    body = {"stripe_payment_method_id": "pm_card_visa"}
    other = {"stripe_payment_method_id": "pm_card_mastercard"}
    return Call(path="/v1/payment_methods", body=body, token=world.shop.customer_token, other=other)


def set_default(world: World) -> Call:
    """Make a card the default."""
    path = f"/v1/payment_methods/{world.shop.card('pm_card_visa')['id']}:set_default"
    return Call(path=path, body={}, token=world.shop.customer_token, elsewhere=another(path))


def detach(world: World) -> Call:
    """Remove a card."""
    path = f"/v1/payment_methods/{world.shop.card('pm_card_visa')['id']}"
    return Call(path=path, body=None, token=world.shop.customer_token, elsewhere=another(path))


def create_payment(world: World) -> Call:
    """Create a payment."""
    body = world.shop.order(2500)
    return Call(path="/v1/payments", body=body, token=world.shop.seller_token, other=body | {"description": "x"})


def confirm_payment(world: World) -> Call:
    """Confirm a payment."""
    path, body = f"/v1/payments/{world.shop.payment()['id']}:confirm", {"payment_method_id": world.shop.method_id}
    other = {"payment_method_id": another(world.shop.method_id)}
    return Call(path=path, body=body, token=world.shop.customer_token, other=other)


def capture_payment(world: World) -> Call:
    """Capture a part."""
    path, body = f"/v1/payments/{world.shop.authorized()['id']}:capture", {"amount": usd(1000)}
    return Call(path=path, body=body, token=world.shop.seller_token, other={"amount": usd(1001)})


def cancel_payment(world: World) -> Call:
    """Cancel."""
    path, body = f"/v1/payments/{world.shop.authorized()['id']}:cancel", {"reason": "ABANDONED"}
    return Call(path=path, body=body, token=world.shop.seller_token, other={"reason": "DUPLICATE_PAYMENT"})


def create_refund(world: World) -> Call:
    """Give a part back."""
    path, body = f"{world.paid()}/refunds", {"amount": usd(100)}
    return Call(path=path, body=body, token=world.shop.seller_token, other={"amount": usd(101)})


def update_payment(world: World) -> Call:
    """Change a note."""
    path = f"/v1/payments/{world.shop.payment()['id']}"
    return Call(path=path, body={"description": "tea"}, token=world.shop.seller_token, other={"description": "coffee"})


def review(verb: str) -> Callable[[World], Call]:
    """Return the call of who looked at a large payment."""

    def decide(world: World) -> Call:
        payment = world.shop.payment(REVIEW_ABOVE["CHF"] + 1, "CHF")
        world.shop.ok(world.shop.confirm(payment["id"]))
        path = f"/v1/payments/{payment['id']}:{verb}"
        return Call(path=path, body={}, token=world.shop.seller_token, elsewhere=another(path))

    return decide


def cancel_refund(world: World) -> Call:
    """Cancel a refund that Stripe was not reached for."""
    world.shop.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="error", status=429, times=3)
    listed, token = f"{world.paid()}/refunds", world.shop.seller_token
    assert world.shop.call("POST", listed, {"amount": usd(100)}, token=token).status_code == 503
    refund = world.shop.ok(world.shop.call("GET", listed, token=token))["refunds"][0]
    path = f"/v1/refunds/{refund['id']}:cancel"
    return Call(path=path, body={}, token=token, elsewhere=another(path))


def accept_dispute(world: World) -> Call:
    """Concede a dispute."""
    payment = world.shop.payment()
    world.shop.ok(world.shop.confirm(payment["id"], method_id=world.shop.card("pm_card_createDispute")["id"]))
    query, token = f"/v1/disputes?payment_id={payment['id']}", world.shop.seller_token

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = world.shop.ok(world.shop.call("GET", query, token=token)).get("disputes", [])
        return found

    wait_for(lambda: bool(listed()), "the dispute")
    path = f"/v1/disputes/{listed()[0]['id']}:accept"
    return Call(path=path, body={}, token=token, elsewhere=another(path))


def switch_staff(world: World) -> Call:
    """Exchange a code of an authenticator app."""
    somebody = colleague(world.shop, "support")
    body = {"totp_code": somebody.code()}
    return Call(path="/v1/sessions:switch_staff", body=body, token=somebody.token, other={"totp_code": "000000"})


def resolve(world: World, path: str, decision: str) -> Call:
    """Decide what nobody else can."""
    token = world.shop.ok(colleague(world.shop, "operator").switch())["access_token"]
    body = {"decision": decision, "reason": "seen in the dashboard"}
    return Call(path=path, body=body, token=token, other=body | {"reason": "seen by somebody"})


def resolve_conflict(world: World) -> Call:
    """Take what Stripe took."""
    payment = conflicted(world.shop, 2500, ours="amount_minor = 2600")
    return resolve(world, f"/v1/payments/{payment['id']}:resolve_conflict", "ACCEPT")


def resolve_payment(world: World) -> Call:
    """Look into a confirm whose answer was an error."""
    payment = world.shop.payment()
    world.shop.platform.sandbox("faults", method="post", path="/confirm$", kind="error", status=500, times=1)
    assert world.shop.ok(world.shop.confirm(payment["id"]))["certainty"] == "UNKNOWN"
    return resolve(world, f"/v1/payments/{payment['id']}:resolve", "READ_AGAIN")


def resolve_refund(world: World) -> Call:
    """Look into a refund that Stripe was not reached for."""
    shop, payment = world.shop, world.shop.payment()
    shop.ok(shop.confirm(payment["id"]))
    shop.platform.sandbox("faults", method="post", path="/v1/refunds$", kind="error", status=429, times=3)
    assert shop.refund(payment["id"], 100).status_code == 503
    path = f"/v1/payments/{payment['id']}/refunds"
    refund = shop.ok(shop.call("GET", path, token=shop.seller_token))["refunds"][0]
    return resolve(world, f"/v1/refunds/{refund['id']}:resolve", "READ_AGAIN")


def resolve_item(world: World) -> Call:
    """End a break."""
    operator = Operator(world.shop, world.shop.ok(colleague(world.shop, "finance").switch())["access_token"])
    item = operator.item_of(charged_by_a_stranger(world.shop, 1300))
    body = {"decision": "ACCEPT", "reason": "seen in the dashboard", "write_off": True}
    path = f"/v1/reconciliation_items/{item['id']}:resolve"
    return Call(path=path, body=body, token=operator.token, other=body | {"write_off": False})


def create_setup_intent(world: World) -> Call:
    """Begin to save a card."""
    body = {"usage": "ON_SESSION"}
    return Call(path="/v1/setup_intents", body=body, token=world.shop.customer_token, other={"usage": "OFF_SESSION"})


def confirm_setup_intent(world: World) -> Call:
    """Save a card."""
    setup = world.shop.ok(world.shop.call("POST", "/v1/setup_intents", {}, token=world.shop.customer_token))
    body = {"stripe_payment_method_id": "pm_card_visa"}
    return Call(
        path=f"/v1/setup_intents/{setup['id']}:confirm", body=body, token=world.shop.customer_token,
        other={"stripe_payment_method_id": "pm_card_mastercard"},
    )  # fmt: skip


def revoke_mandate(world: World) -> Call:
    """Take a mandate back."""
    path = world.mandate()
    return Call(path=path, body=None, token=world.shop.customer_token, elsewhere=another(path))


def replace_payment_settings(world: World) -> Call:
    """Set where payers may return to."""
    body = {"return_url_origins": ["https://shop.example"]}
    other: dict[str, Any] = {"return_url_origins": []}
    return Call(path="/v1/payment_settings", body=body, token=world.team.token, other=other)


def replace_merchant_fee_plan(world: World) -> Call:
    """Give a merchant terms of its own."""
    token = world.shop.ok(colleague(world.shop, "finance").switch())["access_token"]
    body = {"basis_points": 100, "fee_refund": "RETURNED", "reason": "agreed"}
    path = f"/v1/merchants/{world.team.merchant_id}/fee_plan"
    return Call(path=path, body=body, token=token, other=body | {"basis_points": 101})


def create_wallet(world: World) -> Call:
    """Open a wallet."""
    token = person(world.shop).token
    return Call(path="/v1/wallets", body={"currency": "USD"}, token=token, other={"currency": "EUR"})


def create_top_up(world: World) -> Call:
    """Add money to a wallet."""
    somebody, path = world.wallet()
    card = somebody.ok("POST", "/v1/payment_methods", {"stripe_payment_method_id": "pm_card_visa"})
    body = {"amount": usd(700), "payment_method_id": card["id"]}
    return Call(path=f"{path}/top_ups", body=body, token=somebody.token, other=body | {"amount": usd(701)})


CALLS: Final[dict[str, Callable[[World], Call]]] = {
    "RegisterUser": register,
    "CreateSession": create_session,
    "RefreshSession": refresh_session,
    "SwitchMerchant": switch_merchant,
    "SwitchStaff": switch_staff,
    "RevokeSession": lambda world: Call(path="/v1/sessions:revoke", body={}, token=person(world.shop).token),
    "CreateMerchant": create_merchant,
    "VerifyEmail": verify_email,
    "RequestEmailVerification": request_email_verification,
    "RequestPasswordReset": request_password_reset,
    "ResetPassword": reset_password,
    "ChangePassword": change_password,
    "UpdateMe": update_me,
    "DeleteSession": delete_session,
    "UpdateMerchant": update_merchant,
    "InviteMember": invite_member,
    "UpdateMember": update_member,
    "RemoveMember": remove_member,
    "RevokeInvitation": revoke_invitation,
    "AcceptInvitation": answer_invitation("accept"),
    "DeclineInvitation": answer_invitation("decline"),
    "CreateApiKey": create_api_key,
    "RevokeApiKey": revoke_api_key,
    "RotateApiKey": rotate_api_key,
    "CreatePaymentMethod": create_payment_method,
    "SetDefaultPaymentMethod": set_default,
    "DetachPaymentMethod": detach,
    "CreatePayment": create_payment,
    "ConfirmPayment": confirm_payment,
    "CapturePayment": capture_payment,
    "CancelPayment": cancel_payment,
    "CreateRefund": create_refund,
    "UpdatePayment": update_payment,
    "ApprovePayment": review("approve"),
    "RejectPayment": review("reject"),
    "CancelRefund": cancel_refund,
    "AcceptDispute": accept_dispute,
    "ResolveConflict": resolve_conflict,
    "ResolvePayment": resolve_payment,
    "ResolveRefund": resolve_refund,
    "ResolveReconciliationItem": resolve_item,
    "CreateSetupIntent": create_setup_intent,
    "ConfirmSetupIntent": confirm_setup_intent,
    "RevokeMandate": revoke_mandate,
    "ReplacePaymentSettings": replace_payment_settings,
    "ReplaceMerchantFeePlan": replace_merchant_fee_plan,
    "CreateWallet": create_wallet,
    "CreateTopUp": create_top_up,
}


@pytest.fixture(scope="module")
def world(shop: Shop) -> World:
    """Create a team beside the shop."""
    owner = person(shop, "Owner").verified()
    body = {"display_name": "Tea & Sons", "country": "US", "default_currency": "USD"}
    merchant = owner.ok("POST", "/v1/merchants", body)
    return World(shop, Team(owner, merchant["id"], act_for(owner, merchant["id"])))


def asked(shop: Shop, method: MethodDescriptor, call: Call, key: str, *, path: str, body: Any) -> httpx.Response:
    """Call a method under a key, until it is answered."""
    verb = method.GetOptions().Extensions[annotations_pb2.http].WhichOneof("pattern").upper()
    headers = {"idempotency-key": key} | ({"authorization": f"Bearer {call.token}"} if call.token else {})
    return insist(lambda: shop.client.request(verb, path, json=body, headers=headers))


def test_every_method_that_changes_something_is_listed() -> None:
    names = {method.name for method in METHODS}
    assert {*CALLS, *BY_NATURE} <= names, "a line of a method that is gone"
    missing = {method.name for method in PUBLIC} - {*CALLS, *BY_NATURE}
    assert not missing, "give a valid request for each"
    # Between servers the caller makes the ids: nobody there keeps keys.
    keyed = {method.name for method in INNER if idempotency(method) != options_pb2.IDEMPOTENCY_BY_RESOURCE_ID}
    assert keyed <= BY_NATURE.keys()


@pytest.mark.parametrize("method", [m for m in PUBLIC if idempotency(m) in KEYED], ids=lambda method: method.name)
def test_a_key_has_one_answer_and_one_request(world: World, method: MethodDescriptor) -> None:
    if method.name in BY_NATURE:
        pytest.skip(BY_NATURE[method.name])
    call, key = CALLS[method.name](world), str(uuid.uuid4())
    first = asked(world.shop, method, call, key, path=call.path, body=call.body)
    assert first.status_code == 200, first.text
    assert "idempotent-replayed" not in first.headers
    again = asked(world.shop, method, call, key, path=call.path, body=call.body)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    if call.other is None and not call.elsewhere:
        return
    other = asked(world.shop, method, call, key, path=call.elsewhere or call.path, body=call.other or call.body)
    assert (other.status_code, reason_of(other)) == (400, "IDEMPOTENCY_KEY_REUSED")


def test_the_page_of_a_mail_says_the_same_again(world: World) -> None:
    token = token_of(mail_to(world.shop.platform, person(world.shop).email, "Verify"))
    query = {"token": token, "confirm": "true"}
    first, again = (world.shop.client.get("/v1/users:open_email_link", params=query) for _ in range(2))
    assert (first.status_code, first.content) == (again.status_code, again.content)


def test_an_event_of_stripes_is_stored_once(world: World) -> None:
    state = world.shop.platform.state
    secret = Path(state["secrets_dir"], "stripe_webhook").read_text()
    identifier = f"evt_{uuid.uuid4().hex}"
    about = {"created": int(time.time()), "type": "payout.paid", "data": {"object": {"id": "po_1"}}}
    body = json.dumps({"id": identifier, "object": "event", **about})
    headers = {"stripe-signature": signed(body.encode(), secret, int(time.time())), "content-type": "application/json"}
    first, again = (world.shop.client.post("/webhooks/stripe", content=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    rows = world.shop.platform.sql("payments", f"SELECT count(*) FROM stripe_events WHERE id = '{identifier}'")
    assert rows == [(1,)]
