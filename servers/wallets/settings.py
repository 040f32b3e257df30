"""Settings of the wallets server."""

from __future__ import annotations

from pydantic import SecretStr

from servers.runtime.settings import ServerSettings


class WalletsSettings(ServerSettings):
    """What the wallets server needs beyond the common settings."""

    ledger_chain_keys: SecretStr
    """What the ledger's batches are linked with: keys of 32 bytes in base64, with commas between, the newest first."""
    object_store_url: str
    """Where the roots of the ledger's days are published: `file:///…`, or `s3://bucket/prefix` (with object lock), `gs://…`, `az://…`."""
    root_period_seconds: int = 86_400
    """How long a period of the ledger is, over whose batches a root is published; days in UTC unless said."""
    writer_queue_max: int = 2_000
    """How many transfers may wait for the writer before new ones are shed."""
    writer_batch_max: int = 500
    """How many transfers one commit may hold."""
    settlement_delay_seconds: int = 172_800
    """How long a capture's money is pending before it is available."""
