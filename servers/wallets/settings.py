"""Settings of the wallets server."""

from __future__ import annotations

from servers.runtime.settings import ServerSettings


class WalletsSettings(ServerSettings):
    """What the wallets server needs beyond the common settings."""

    writer_queue_max: int = 2_000
    """How many transfers may wait for the writer before new ones are shed."""
    writer_batch_max: int = 500
    """How many transfers one commit may hold."""
    settlement_delay_seconds: int = 172_800
    """How long a capture's money is pending before it is available."""
