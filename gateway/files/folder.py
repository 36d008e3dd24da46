"""A storage in a folder, which all processes share. Files are read and written in threads."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import gevent

from gateway.files.storage import CHUNK_BYTES, ObjectMissing, StorageUnavailable

T = TypeVar("T")

PART = ".part"  # ends the name of a file that is being written
BUFFER_BYTES = 1_048_576  # written at once: each write is a trip to a thread


def in_thread(work: Callable[..., T], *args: Any) -> T:
    """What `work` returns, run in a thread while other greenlets go on.

    Raises StorageUnavailable for an OSError other than FileNotFoundError.
    """
    try:
        result: T = gevent.get_hub().threadpool.apply(work, args)
        return result
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageUnavailable(f"{type(error).__name__}: {error.strerror}") from error


def _written(work: Callable[..., T], *args: Any) -> T:
    """As `in_thread`, and raises StorageUnavailable as well where the folder is away."""
    try:
        return in_thread(work, *args)
    except FileNotFoundError as error:
        raise StorageUnavailable(f"{type(error).__name__}: {error.strerror}") from error


class FolderStorage:
    """See Storage. The folder is made when something is first written."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def create(self, name: str) -> FolderUpload:
        """Begin to write an object."""
        return FolderUpload(self._folder / name)

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content in pieces of CHUNK_BYTES; raises ObjectMissing."""
        try:
            file = in_thread(_open, self._folder / name)
        except FileNotFoundError:
            raise ObjectMissing(name) from None
        try:
            while piece := in_thread(file.read, CHUNK_BYTES):
                yield piece
        finally:
            file.close()

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are ignored."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                in_thread(os.unlink, self._folder / name)

    def names(self, prefix: str, before: float) -> Iterator[str]:
        """Yield the names that begin with `prefix` and were written before this Unix time.

        Those of writes that were broken off are among them.
        """
        yield from in_thread(self._names, prefix, before)

    def _names(self, prefix: str, before: float) -> list[str]:
        names = []
        for folder, _, files in os.walk(self._folder):
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self._folder).as_posix()
                with contextlib.suppress(FileNotFoundError):
                    if name.startswith(prefix) and path.stat().st_mtime < before:
                        names.append(name)
        return sorted(names)


class FolderUpload:
    """See Upload. The file gets its name only once it is on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
        self._buffer = bytearray()
        self._file: BinaryIO | None = _written(self._open)

    def write(self, data: bytes) -> None:
        """Append some bytes."""
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush()

    def commit(self) -> None:
        """Make the object visible, in place of one with the same name."""
        self._flush()
        _written(self._publish)
        self._file = None

    def abort(self) -> None:
        """Drop what was written. Nothing happens after `commit`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                self._part.unlink()

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(self._part, "xb", 0, opener=_private)

    def _flush(self) -> None:
        assert self._file is not None
        data, self._buffer = bytes(self._buffer), bytearray()
        _written(_write_all, self._file, data)

    def _publish(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self._path)


def _open(path: Path) -> BinaryIO:
    return open(path, "rb", 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
