"""Where the content of files is kept: what a storage does, and which one FILES_URL names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol
from urllib.parse import unquote, urlsplit

from gateway.settings import ConfigurationError, Settings

CHUNK_BYTES = 262_144  # of what `read` returns at once


class StorageUnavailable(Exception):
    """Raised when the storage does not answer, or refuses; the message is for the log."""


class ObjectMissing(Exception):
    """Raised when the storage has no object of this name."""


class Upload(Protocol):
    """An object that is being written: nobody sees it before `commit`.

    All methods raise StorageUnavailable.
    """

    def write(self, data: bytes) -> None:
        """Append some bytes."""

    def commit(self) -> None:
        """Make the object visible, in place of one with the same name."""

    def abort(self) -> None:
        """Drop what was written. Nothing happens after `commit`."""


class Storage(Protocol):
    """Objects with names such as `files/file-1`; written once, never changed.

    Its methods let other greenlets run and raise StorageUnavailable.
    """

    def create(self, name: str) -> Upload:
        """Begin to write an object."""

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content in pieces of about CHUNK_BYTES; raises ObjectMissing."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are ignored."""

    def names(self, prefix: str, before: float) -> Iterator[str]:
        """Yield the names that begin with `prefix` and were written before this Unix time."""


def open_storage(settings: Settings) -> Storage | None:
    """The storage that FILES_URL names; None if it names none. Connects to nothing yet.

    Raises ConfigurationError for an address that cannot be used, and if boto3 is missing.
    """
    if not settings.files_url:
        return None
    url = urlsplit(settings.files_url)
    if url.scheme == "file":
        from gateway.files.folder import FolderStorage

        return FolderStorage(unquote(url.path))
    try:
        # Not at the top: boto3 is an extra, and takes half a second to import.
        from gateway.files.bucket import BucketStorage
    except ImportError:
        raise ConfigurationError(
            "FILES_URL names a bucket: pip install -r requirements-s3.txt"
        ) from None
    return BucketStorage(url.netloc, unquote(url.path).strip("/"))


def put(storage: Storage, name: str, content: Iterable[bytes]) -> int:
    """Write an object and return its size in bytes; raises StorageUnavailable."""
    upload, size = storage.create(name), 0
    try:
        for piece in content:
            upload.write(piece)
            size += len(piece)
        upload.commit()
    except BaseException:
        upload.abort()
        raise
    return size
