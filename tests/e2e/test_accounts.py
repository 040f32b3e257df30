"""Accounts, as people use them: addresses proved by mail, passwords, sessions, teams, keys; through the edge."""

from __future__ import annotations

import ipaddress
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.mail import mail_to, mails_to, reply_with, token_of
from tests.support.stack import Shop, insist, reason_of, wait_for

PASSWORD = "four words of nothing"


@dataclass(frozen=True)
class Person:
    """A registered user who is logged in."""

    shop: Shop
    email: str
    user_id: str
    token: str
    refresh_token: str

    def call(
        self, method: str, path: str, body: Any = None, *, token: str = "", key: str | None = None
    ) -> httpx.Response:
        """Call as this person."""
        return self.shop.call(method, path, body, token=token or self.token, key=key)

    def ok(self, method: str, path: str, body: Any = None, *, token: str = "") -> dict[str, Any]:
        """Call as this person, and be answered well."""
        return self.shop.ok(self.call(method, path, body, token=token))

    def verified(self) -> Person:
        """Verify the address by the mail."""
        token = token_of(mail_to(self.shop.platform, self.email, "Verify"))
        assert self.shop.ok(self.shop.call("POST", "/v1/users:verify_email", {"token": token}))["email_verified"]
        return self


def log_in(shop: Shop, email: str, password: str = PASSWORD) -> httpx.Response:
    """Log in."""
    return shop.call("POST", "/v1/sessions", {"email": email, "password": password})


def person(shop: Shop, name: str = "Grace") -> Person:
    """Register somebody."""
    email = f"{uuid.uuid4().hex}@example.com"
    body = {"email": email, "password": PASSWORD, "display_name": name}
    user = shop.ok(insist(lambda: shop.call("POST", "/v1/users:register", body)))
    tokens = shop.ok(insist(lambda: log_in(shop, email)))
    return Person(shop, email, user["id"], tokens["access_token"], tokens["refresh_token"])


@dataclass(frozen=True)
class Team:
    """A merchant with its owner, who acts for it."""

    owner: Person
    merchant_id: str
    token: str

    @property
    def path(self) -> str:
        """The merchant's path."""
        return f"/v1/merchants/{self.merchant_id}"

    def join(self, somebody: Person, role: str) -> str:
        """Invite somebody who accepts. Returns their token for the merchant."""
        body = {"email": somebody.email, "role": role}
        invitation = self.owner.ok("POST", f"{self.path}/members", body, token=self.token)
        somebody.ok("POST", f"/v1/invitations/{invitation['id']}:accept", {})
        return act_for(somebody, self.merchant_id)


def act_for(somebody: Person, merchant_id: str) -> str:
    """Return a token that acts for a merchant."""
    body = {"merchant_id": merchant_id}
    return str(somebody.ok("POST", "/v1/sessions:switch_merchant", body)["access_token"])


@pytest.fixture(scope="module")
def team(shop: Shop) -> Team:
    """Create a merchant."""
    owner = person(shop, "Owner").verified()
    body = {"display_name": "Tea & Sons", "country": "US", "default_currency": "USD"}
    merchant = owner.ok("POST", "/v1/merchants", body)
    return Team(owner, merchant["id"], act_for(owner, merchant["id"]))


def test_an_address_is_verified_by_the_page_that_the_mail_links_to(shop: Shop) -> None:
    somebody = person(shop)
    assert somebody.ok("GET", "/v1/users/me")["email_verified"] is False
    mail = mail_to(shop.platform, somebody.email, "Verify your email address")
    token = token_of(mail)
    assert f"users:open_email_link?token={token}" in mail["text"]
    assert token in mail["html"]
    asked = shop.client.get("/v1/users:open_email_link", params={"token": token})
    assert (asked.status_code, asked.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (
        somebody.ok("GET", "/v1/users/me")["email_verified"] is False
    )  # a scanner that follows links verifies nothing
    for _ in range(2):
        done = shop.client.get("/v1/users:open_email_link", params={"token": token, "confirm": "true"})
        assert "is verified" in done.text
    assert somebody.ok("GET", "/v1/users/me")["email_verified"] is True
    wrong = shop.client.get("/v1/users:open_email_link", params={"token": "<b>no", "confirm": "true"})
    assert "does not work" in wrong.text
    assert reason_of(shop.call("POST", "/v1/users:verify_email", {"token": "no"})) == "EMAIL_TOKEN_INVALID"


def test_a_password_is_reset_by_mail_and_every_session_ends(shop: Shop) -> None:
    somebody = person(shop)
    told = [
        shop.ok(shop.call("POST", "/v1/users:request_password_reset", {"email": email}))
        for email in (somebody.email, "nobody@example.com")
    ]
    assert told[0] == told[1]
    token = token_of(mail_to(shop.platform, somebody.email, "Set a new password"))
    body = {"token": token, "new_password": "quite another one"}
    assert (
        shop.call("POST", "/v1/users:verify_email", {"token": token}).status_code == 401
    )  # each token has its purpose
    shop.ok(shop.call("POST", "/v1/users:reset_password", body))
    assert reason_of(shop.call("POST", "/v1/users:reset_password", body)) == "EMAIL_TOKEN_INVALID"
    assert log_in(shop, somebody.email).status_code == 401
    assert log_in(shop, somebody.email, "quite another one").status_code == 200
    used = shop.call("POST", "/v1/sessions:refresh", {"refresh_token": somebody.refresh_token})
    assert reason_of(used) == "REFRESH_TOKEN_INVALID"
    mail_to(shop.platform, somebody.email, "Your password was changed")
    assert mails_to(shop.platform, "nobody@example.com") == []


def test_a_password_is_changed_and_other_sessions_end(shop: Shop) -> None:
    somebody = person(shop)
    other = shop.ok(log_in(shop, somebody.email))
    path = "/v1/users/me:change_password"
    wrong = somebody.call("POST", path, {"current_password": "wrong", "new_password": "quite another one"})
    assert reason_of(wrong) == "LOGIN_FAILED"
    short = somebody.call("POST", path, {"current_password": PASSWORD, "new_password": "short"})
    assert reason_of(short) == "FIELD_INVALID"
    somebody.ok("POST", path, {"current_password": PASSWORD, "new_password": "quite another one"})
    assert shop.call("POST", "/v1/sessions:refresh", {"refresh_token": other["refresh_token"]}).status_code == 401
    assert shop.call("POST", "/v1/sessions:refresh", {"refresh_token": somebody.refresh_token}).status_code == 200


@pytest.mark.parametrize("password", ["pässwörd ñandú", "密码密码密码密码", "🐎" * 20, "x" * 256])
def test_a_password_may_be_long_and_in_any_script(shop: Shop, password: str) -> None:
    email = f"{uuid.uuid4().hex}@example.com"
    shop.ok(shop.call("POST", "/v1/users:register", {"email": email, "password": password, "display_name": "A"}))
    assert log_in(shop, email, password).status_code == 200
    assert log_in(shop, email, password[:-1] + "!").status_code == 401


def test_sessions_are_listed_and_ended_one_by_one(shop: Shop) -> None:
    somebody = person(shop)
    phone = shop.ok(
        shop.client.post(
            "/v1/sessions",
            json={"email": somebody.email, "password": PASSWORD},
            headers={"user-agent": "Phone 1", "idempotency-key": str(uuid.uuid4())},
        )
    )
    sessions = somebody.ok("GET", "/v1/sessions")["sessions"]
    assert [session["current"] for session in sessions] == [False, True]
    assert sessions[0]["user_agent"] == "Phone 1"
    assert ipaddress.ip_address(sessions[0]["address"])
    assert somebody.ok("DELETE", f"/v1/sessions/{sessions[0]['id']}")["state"] == "REVOKED"
    assert shop.call("POST", "/v1/sessions:refresh", {"refresh_token": phone["refresh_token"]}).status_code == 401
    assert len(somebody.ok("GET", "/v1/sessions")["sessions"]) == 1
    stranger = person(shop)
    assert stranger.call("DELETE", f"/v1/sessions/{sessions[1]['id']}").status_code == 404
    mail = mail_to(shop.platform, somebody.email, "New sign-in")
    assert "Phone 1" in mail["text"]
    assert len([m for m in mails_to(shop.platform, somebody.email) if "New sign-in" in m["subject"]]) == 1


def test_of_64_refreshes_at_once_one_wins_and_the_session_ends(shop: Shop) -> None:
    somebody = person(shop)

    def refresh(_: int) -> httpx.Response:
        with httpx.Client(base_url=shop.platform.edge, verify=shop.platform.context, timeout=30) as client:
            return client.post("/v1/sessions:refresh", json={"refresh_token": somebody.refresh_token})

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(refresh, range(64)))
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    assert {answer.status_code for answer in answers} <= {200, 401, 429}
    late = insist(lambda: shop.call("POST", "/v1/sessions:refresh", {"refresh_token": won[0].json()["refresh_token"]}))
    assert late.status_code == 401


def test_a_name_changes_only_where_the_etag_is_the_present_one(shop: Shop) -> None:
    somebody = person(shop)
    etag = somebody.ok("GET", "/v1/users/me")["etag"]
    assert somebody.ok("PATCH", "/v1/users/me", {"display_name": "Ada L.", "etag": etag})["display_name"] == "Ada L."
    stale = somebody.call("PATCH", "/v1/users/me", {"display_name": "Eve", "etag": etag})
    assert (stale.status_code, reason_of(stale)) == (409, "ETAG_MISMATCH")
    wrong = somebody.call("PATCH", "/v1/users/me", {"display_name": "Eve", "etag": "7"})
    assert wrong.json()["details"][1]["field_violations"][0]["field"] == "etag"


def test_a_member_is_invited_by_mail_accepts_and_is_removed(shop: Shop, team: Team) -> None:
    somebody = person(shop)
    body = {"email": somebody.email, "role": "finance"}
    invitation = team.owner.ok("POST", f"{team.path}/members", body, token=team.token)
    assert reason_of(team.owner.call("POST", f"{team.path}/members", body, token=team.token)) == "REFERENCE_TAKEN"
    assert "Tea & Sons invites you" in mail_to(shop.platform, somebody.email, "invites you")["subject"]
    accept = f"/v1/invitations/{invitation['id']}:accept"
    assert reason_of(somebody.call("POST", accept, {})) == "EMAIL_NOT_VERIFIED"
    assert somebody.ok("GET", "/v1/invitations")["invitations"] == []
    somebody.verified()
    assert [one["id"] for one in somebody.ok("GET", "/v1/invitations")["invitations"]] == [invitation["id"]]
    assert person(shop).verified().call("POST", accept, {}).status_code == 404
    assert somebody.ok("POST", accept, {})["role"] == "finance"
    assert reason_of(somebody.call("POST", accept, {})) == "INVITATION_STATE_INVALID"
    token = act_for(somebody, team.merchant_id)
    assert somebody.call("GET", f"{team.path}/members", token=token).status_code == 403  # finance reads no members
    assert somebody.call("GET", "/v1/balances", token=token).status_code == 200
    members = team.owner.ok("GET", f"{team.path}/members", token=team.token)["members"]
    assert {(m["user_id"], m["role"]) for m in members} >= {
        (somebody.user_id, "finance"),
        (team.owner.user_id, "owner"),
    }
    team.owner.ok("PATCH", f"{team.path}/members/{somebody.user_id}", {"role": "admin"}, token=team.token)
    token = act_for(somebody, team.merchant_id)
    promoted = somebody.call("PATCH", f"{team.path}/members/{somebody.user_id}", {"role": "owner"}, token=token)
    assert reason_of(promoted) == "MEMBER_ROLE_INVALID"
    assert team.owner.ok("DELETE", f"{team.path}/members/{somebody.user_id}", token=team.token)["state"] == "REMOVED"
    switch = somebody.call("POST", "/v1/sessions:switch_merchant", {"merchant_id": team.merchant_id})
    assert switch.status_code == 404
    assert somebody.call("GET", f"{team.path}/members", token=token).status_code in (200, 404)  # the token's 15 minutes
    actions = [entry["action"] for entry in team.owner.ok("GET", "/v1/audit_log", token=team.token)["entries"]]
    assert actions[:4] == ["member.removed", "member.role_changed", "member.joined", "member.invited"]


def test_two_owners_who_remove_each_other_leave_one(shop: Shop, team: Team) -> None:
    body = {"display_name": "Duel", "country": "US", "default_currency": "USD"}
    first, second = person(shop).verified(), person(shop).verified()
    merchant = first.ok("POST", "/v1/merchants", body)
    duel = Team(first, merchant["id"], act_for(first, merchant["id"]))
    only = first.call("DELETE", f"{duel.path}/members/{first.user_id}", token=duel.token)
    assert reason_of(only) == "MEMBER_ROLE_INVALID"
    other = duel.join(second, "owner")

    def remove(pair: tuple[str, str]) -> int:
        return shop.call("DELETE", f"{duel.path}/members/{pair[0]}", token=pair[1]).status_code

    with ThreadPoolExecutor(2) as pool:
        codes = sorted(pool.map(remove, [(second.user_id, duel.token), (first.user_id, other)]))
    assert codes in ([200, 404], [200, 400])
    owners = (
        f"SELECT count(*) FROM members WHERE merchant_id = '{merchant['id']}' AND role = 'owner' AND state = 'ACTIVE'"
    )
    assert shop.platform.sql("identity", owners) == [(1,)]


def test_an_invitation_is_declined_taken_back_and_grows_old(shop: Shop, team: Team) -> None:
    somebody = person(shop).verified()
    body = {"email": somebody.email.upper(), "role": "viewer"}  # case does not make another address
    for verb in ("decline", "revoke", "expire"):
        invitation = team.owner.ok("POST", f"{team.path}/members", body, token=team.token)
        path = f"/v1/invitations/{invitation['id']}"
        if verb == "decline":
            assert somebody.ok("POST", f"{path}:decline", {})["state"] == "DECLINED"
        elif verb == "revoke":
            gone = f"{team.path}/invitations/{invitation['id']}"
            assert team.owner.ok("DELETE", gone, token=team.token)["state"] == "REVOKED"
        else:
            old = f"UPDATE invitations SET expire_time = now() - interval '1 day' WHERE id = '{invitation['id']}'"
            shop.platform.sql("identity", old)
        refused = somebody.call("POST", f"{path}:accept", {})
        assert reason_of(refused) == "INVITATION_STATE_INVALID"
        assert somebody.ok("GET", "/v1/invitations")["invitations"] == []


def test_a_key_is_rotated_with_both_alive_for_a_while(shop: Shop, team: Team) -> None:
    body = {"display_name": "server", "scopes": ["balances:read"]}
    old = team.owner.ok("POST", "/v1/api_keys", body, token=team.token)
    path = f"/v1/api_keys/{old['api_key']['id']}:rotate"
    new = team.owner.ok("POST", path, {"grace_seconds": 2}, token=team.token)
    assert new["api_key"]["scopes"] == old["api_key"]["scopes"]
    for secret in (old["secret"], new["secret"]):
        assert shop.call("GET", "/v1/balances", token=secret).status_code == 200
    wait_for(lambda: shop.call("GET", "/v1/balances", token=old["secret"]).status_code == 401, "the end of the old key")
    assert shop.call("GET", "/v1/balances", token=new["secret"]).status_code == 200
    assert reason_of(team.owner.call("POST", path, {}, token=team.token)) == "API_KEY_STATE_INVALID"


def test_another_merchants_people_see_and_change_nothing(shop: Shop, team: Team) -> None:
    stranger = person(shop).verified()
    body = {"display_name": "Other", "country": "US", "default_currency": "USD"}
    merchant = stranger.ok("POST", "/v1/merchants", body)
    token = act_for(stranger, merchant["id"])
    for method, path, content in (
        ("GET", f"{team.path}/members", None),
        ("GET", f"{team.path}/invitations", None),
        ("PATCH", team.path, {"display_name": "Mine"}),
        ("POST", f"{team.path}/members", {"email": stranger.email, "role": "owner"}),
        ("PATCH", f"{team.path}/members/{team.owner.user_id}", {"role": "viewer"}),
        ("DELETE", f"{team.path}/members/{team.owner.user_id}", None),
    ):
        assert stranger.call(method, path, content, token=token).status_code == 404, path


def test_receipt_and_refund_come_by_mail_once_each(shop: Shop) -> None:
    payment = shop.payment(1050)
    shop.ok(shop.confirm(payment["id"]))
    shop.ok(shop.refund(payment["id"], 300))
    emails = "SELECT count(*) FROM emails WHERE facts ->> 'payment_id' = '{}' AND state = 'SENT'".format(payment["id"])
    wait_for(lambda: shop.platform.sql("notifications", emails) == [(2,)], "the mails")
    address = shop.platform.sql("identity", f"SELECT email FROM users WHERE id = '{shop.user_id}'")[0][0]
    about = [mail for mail in mails_to(shop.platform, address) if payment["id"] in mail["text"]]
    assert sorted(mail["subject"] for mail in about) == ["A refund from Books", "Your receipt from Books"]
    receipt = next(mail for mail in about if "receipt" in mail["subject"])
    assert "You paid 10.50 USD to Books." in receipt["text"]
    listed = shop.ok(shop.call("GET", "/v1/emails", token=shop.customer_token))["emails"]
    assert {one["resource_id"] for one in listed if one["kind"] == "receipt"} >= {payment["id"]}


@pytest.mark.parametrize("point", ["notifications.send.before", "notifications.send.after"])
def test_a_kill_while_a_mail_is_sent_loses_none(shop: Shop, point: str) -> None:
    armed = shop.platform.arm(point)
    somebody = person(shop)
    wait_for(lambda: not armed.exists(), point)
    mail_to(shop.platform, somebody.email, "Verify")
    count = f"SELECT count(*) FROM emails WHERE user_id = '{somebody.user_id}' AND state = 'SENT'"
    wait_for(lambda: shop.platform.sql("notifications", count) == [(1,)], "the note of it")
    ids = {mail["message_id"] for mail in mails_to(shop.platform, somebody.email)}
    assert len(ids) == 1  # where it came twice, it says so by its id


def test_a_mail_server_that_is_busy_is_asked_again_and_one_that_refuses_is_believed(shop: Shop) -> None:
    reply_with(shop.platform, "451 try again later", 1)
    mail_to(shop.platform, person(shop).email, "Verify")
    reply_with(shop.platform, "550 no such mailbox", 1)
    refused = person(shop)
    state = f"SELECT state FROM emails WHERE user_id = '{refused.user_id}'"
    wait_for(lambda: shop.platform.sql("notifications", state) == [("FAILED",)], "the refusal")
    assert mails_to(shop.platform, refused.email) == []
