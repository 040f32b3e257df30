"""Object storage: a local folder, S3, GCS or Azure, through obstore. What is put here is put once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ANSWER_SECONDS = 10
RETRY_SECONDS = 15


class ObjectStoreUnavailable(Exception):
    """The object store does not answer, or refuses us."""


class Objects:
    """One bucket or folder, with its prefix."""

    def __init__(self, url: str) -> None:
        """Open `url`: `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…`. Credentials are read from the environment, as the
        clouds' own tools do. Raises ValueError for an address that it does not know."""
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        local = url.startswith("file:")
        options: dict[str, Any] = {"mkdir": True} if local else _bounds()
        try:
            self._store: ObjectStore = from_url(url, **options)
        except BaseError as error:
            raise ValueError(f"object store {url}: {error}") from error

    async def put_once(self, path: str, data: bytes) -> bytes:
        """Write an object unless it is there. Returns what stands there now, which may be another's.

        Raises ObjectStoreUnavailable."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            await self._store.put_async(path, data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return await self.get(path) or b""
        except (BaseError, OSError) as error:
            raise ObjectStoreUnavailable(str(error)) from error
        return data

    async def get(self, path: str) -> bytes | None:
        """Return an object, or None where there is none. Raises ObjectStoreUnavailable."""
        from obstore.exceptions import BaseError

        try:
            found = await self._store.get_async(path)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise ObjectStoreUnavailable(str(error)) from error


def _bounds() -> dict[str, Any]:
    wait = timedelta(seconds=ANSWER_SECONDS)
    return {
        "client_options": {"timeout": wait, "connect_timeout": wait},
        "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    }
