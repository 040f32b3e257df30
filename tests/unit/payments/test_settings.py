"""The settings that a deployment gives nothing for."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from servers.payments.domain import FeePayer, FeePlan
from servers.payments.settings import PaymentsSettings


def test_what_is_not_set_has_a_default() -> None:
    secret = SecretStr("x")
    settings = PaymentsSettings(
        profile="production",
        grpc_port=1,
        metrics_port=2,
        tls_dir=Path("/"),
        database_url=secret,
        eventlog_url=secret,
        redis_url=secret,
        seal_key=secret,
        page_token_key=secret,
        stripe_api_key=secret,
        stripe_webhook_secrets=SecretStr("whsec_x"),
        fee_plan=FeePlan(version="1", basis_points=150, fixed_minor={}),
        client_secret_key=secret,
        public_url="https://pay.example",
    )
    assert settings.review_above_minor == {}
    assert settings.dispute_fee_payer is FeePayer.MERCHANT
    assert not settings.refunds_wait_for_balance
