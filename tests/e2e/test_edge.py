"""What the edge makes of the contract: which paths exist, which need no credential, which status an answer has."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from dev import edge
from tests.support.gate import Gate, second_edge
from tests.support.stack import Shop
from tests.support.trial import SERVICE, TARGET, contract, trial_server

RETURN = "/v1/trials/tri_1/return"


@pytest.fixture(scope="module")
def trial(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """Start an edge that knows the made-up service, and the service."""
    folder = tmp_path_factory.mktemp("trial")
    with (
        trial_server(shop.platform) as port,
        second_edge(shop, folder, descriptors=contract(folder), ports={"payments": port}) as gate,
    ):
        yield gate


@pytest.fixture
def visitor(trial: Gate) -> Iterator[httpx.Client]:
    """Return a client without a credential."""
    with trial.client() as client:
        yield client


def test_a_public_path_with_a_variable_needs_no_credential(visitor: httpx.Client) -> None:
    answer = visitor.get(RETURN)
    assert (answer.status_code, answer.text) == (200, "hello")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/trials/tri_1", 401),  # its neighbour has no public audience
        ("POST", RETURN, 404),
        ("DELETE", RETURN, 404),
        ("GET", "/v1/trials/tri_1/x/return", 404),
        ("GET", "/v1/trials/tri_1/return/more", 404),
        ("GET", "/v1/trials//return", 401),  # slashes are merged: it is the neighbour, of an object called "return"
        ("GET", "/v1/trials/tri_1:return", 404),
        ("GET", "/v1/trials/tri_1/return/", 404),
        ("GET", "/v1/trials/tri_1%2Freturn", 400),
        ("GET", f"/{SERVICE}/ReturnFromTrial", 401),
        ("POST", f"/{SERVICE}/GetTrial", 401),
    ],
)
def test_what_is_next_to_a_public_path_stays_closed(visitor: httpx.Client, method: str, path: str, code: int) -> None:
    assert visitor.request(method, path).status_code == code


def test_what_stripe_appends_to_an_address_is_ignored_and_nothing_else_is(visitor: httpx.Client) -> None:
    assert visitor.get(RETURN, params=dict.fromkeys(edge.IGNORED_PARAMETERS, "x")).status_code == 200
    assert visitor.get(RETURN, params={"redirect": "https://evil.example"}).status_code == 400


def test_a_handler_chooses_its_status_and_the_caller_does_not(visitor: httpx.Client) -> None:
    redirected = visitor.get(RETURN, params={"status": "303"}, headers={"x-http-status": "500"})
    assert (redirected.status_code, redirected.headers["location"]) == (303, TARGET)
    assert redirected.headers["x-seen"] == "nothing"
    assert "x-http-status" not in redirected.headers
    for name, value in edge.SECURITY_HEADERS:
        assert redirected.headers[name] == value, name


@pytest.mark.parametrize("status", ["103", "999", "3033", "teapot", "-1"])
def test_a_status_that_cannot_be_one_is_dropped(visitor: httpx.Client, status: str) -> None:
    answer = visitor.get(RETURN, params={"status": status})
    assert (answer.status_code, "x-http-status" in answer.headers) == (200, False)


def test_a_refusal_keeps_its_own_status(visitor: httpx.Client) -> None:
    answer = visitor.get(RETURN, params={"status": "refused"})
    assert (answer.status_code, "x-http-status" in answer.headers) == (400, False)


@pytest.mark.parametrize(
    "path", ["/v1/payments/pay_1/confirm", "/v1/payments/pay_1:confirm/", "/v1/payment_methods/", "/v1:payment_methods"]
)
def test_no_second_spelling_of_a_path_gets_around_its_limit(shop: Shop, path: str) -> None:
    answer = shop.call("POST", path, {}, token=shop.customer_token)
    assert answer.status_code == 404
    assert answer.json()["details"][0]["reason"] == "METHOD_NOT_FOUND"
