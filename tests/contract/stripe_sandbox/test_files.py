"""Files of evidence: uploaded by the unmodified SDK, kept byte for byte, and shown in a dispute."""

from __future__ import annotations

import io
import os
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe.files import SIZE_MAX
from sandbox.stripe.wire import StripeError, parse_multipart
from tests.support.sandbox import KEY, SandboxProcess, eventually, guest_payment


def named(name: str, content: bytes) -> Any:
    """Return a file as the SDK takes it."""
    file = io.BytesIO(content)
    file.name = name
    return {"purpose": "dispute_evidence", "file": file}


async def open_dispute(client: stripe.StripeClient) -> stripe.Dispute:
    """Return a dispute that needs a response."""
    intent = await guest_payment(client, "pm_card_createDispute", 1000)
    return (await client.v1.disputes.list_async({"payment_intent": intent.id})).data[0]


async def test_a_file_comes_back_byte_for_byte_and_is_evidence(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    content = b"%PDF-1.7\r\n--boundary\r\n\x00\xff\n" + os.urandom(100_000) + b"\r\n"
    key: Any = {"idempotency_key": f"file-{os.urandom(8).hex()}"}
    file = await client.v1.files.create_async(named("receipt.PDF", content), key)
    assert (file.purpose, file.size, file.type, file.filename) == (
        "dispute_evidence",
        len(content),
        "pdf",
        "receipt.PDF",
    )
    read = httpx.get(str(file.url), auth=(KEY, ""))
    assert (read.content, read.headers["content-type"]) == (content, "application/pdf")
    assert httpx.get(str(file.url)).status_code == 401
    eventually(lambda: sandbox.hooks.types(file.id) == ["file.created"], "the webhook")
    dispute = await open_dispute(client)
    given: Any = {"evidence": {"receipt": file.id}, "expand": ["evidence.receipt"]}
    answer: Any = await client.v1.disputes.update_async(dispute.id, given)
    assert (answer.status, answer.evidence.receipt.id, answer.evidence.receipt.size) == (
        "under_review",
        file.id,
        len(content),
    )
    plain = await client.v1.disputes.retrieve_async(dispute.id)
    assert plain.evidence.receipt == file.id
    listed = await client.v1.files.list_async({"purpose": "dispute_evidence", "limit": 1})
    assert listed.data[0].id == file.id
    assert "%PDF" not in str(sandbox.log("/v1/files$"))


async def test_the_same_key_is_the_same_file(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    key: Any = {"idempotency_key": f"file-{os.urandom(8).hex()}"}
    first, second = [await client.v1.files.create_async(named("a.png", b"same"), key) for _ in range(2)]
    assert first.id == second.id
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.files.create_async(named("a.png", b"other"), key)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.exe", b"x", "PDF, JPEG or PNG"),
        ("noname", b"x", "PDF, JPEG or PNG"),
        ("a.pdf", b"", "from 1 to"),
        ("a.pdf", b"x" * (SIZE_MAX + 1), "from 1 to"),
    ],
)
async def test_what_is_no_evidence_is_refused(sandbox: SandboxProcess, name: str, content: bytes, message: str) -> None:
    client = sandbox.client()
    with pytest.raises(stripe.InvalidRequestError, match=message) as refused:
        await client.v1.files.create_async(named(name, content))
    assert refused.value.param == "file"


async def test_all_files_of_a_dispute_have_a_size_together(sandbox: SandboxProcess) -> None:
    client = sandbox.client()
    half = [(await client.v1.files.create_async(named("a.jpg", b"x" * 2_300_000))).id for _ in range(2)]
    dispute = await open_dispute(client)
    given: Any = {"evidence": {"receipt": half[0], "refund_policy": half[1]}, "submit": False}
    with pytest.raises(stripe.InvalidRequestError, match="combined size"):
        await client.v1.disputes.update_async(dispute.id, given)
    given = {"evidence": {"receipt": half[0]}, "submit": False}
    assert (await client.v1.disputes.update_async(dispute.id, given)).evidence_details.has_evidence


def test_a_broken_upload_is_refused(sandbox: SandboxProcess) -> None:
    whole = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\ndispute_evidence\r\n--b--\r\n'
    assert parse_multipart(whole, "b") == {"purpose": "dispute_evidence"}
    for body, boundary in ((b"", "b"), (whole, "c"), (whole[:-6], "b"), (whole.replace(b"; name=", b"; nome="), "b")):
        with pytest.raises(StripeError):
            parse_multipart(body, boundary)
    for kind, body in (
        ("multipart/form-data; boundary=b", whole),
        ("multipart/form-data", whole),
        ("", b"purpose=x&file=y"),
    ):
        answer = httpx.post(f"{sandbox.url}/v1/files", content=body, headers={"content-type": kind}, auth=(KEY, ""))
        assert answer.status_code == 400
    gone = httpx.get(f"{sandbox.url}/v1/files/file_none/contents", auth=(KEY, ""))
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "resource_missing")
