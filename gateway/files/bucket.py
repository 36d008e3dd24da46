"""A storage in a bucket of S3, or of a server with its API. The only place that imports boto3.

boto3 finds its credentials, region and endpoint as always: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and
so on. Its sockets are gevent's in processes that are patched, as gunicorn's are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from gevent.lock import RLock

from gateway.files.storage import CHUNK_BYTES, ObjectMissing, StorageUnavailable

T = TypeVar("T")

PART_BYTES = 8_388_608  # of a multipart upload; S3 takes 10,000 parts of at least 5 MiB
RANGE_BYTES = 4_194_304  # that are read at once
MISSING = ("404", "NoSuchKey")
OPTIONS = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "max_attempts": 3},
    max_pool_connections=50,
    # Many servers with the API of S3 do not know the checksums that boto3 adds by default.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class EmptyObject(Exception):
    """Raised for a range of an object without content."""


def call(work: Callable[..., T], **params: Any) -> T:
    """What a method of boto3's client returns.

    Raises ObjectMissing, EmptyObject and StorageUnavailable.
    """
    try:
        return work(**params)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == "InvalidRange":
            raise EmptyObject from None
        if code in MISSING:
            raise ObjectMissing(params.get("Key", "")) from None
        raise StorageUnavailable(f"S3 refuses: {code}") from error
    except BotoCoreError as error:
        raise StorageUnavailable(type(error).__name__) from error


class BucketStorage:
    """See Storage. Objects have the names `prefix/name`."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._made: Any = None
        self._lock = RLock()

    def create(self, name: str) -> BucketUpload:
        """Begin to write an object."""
        return BucketUpload(self._client(), self._bucket, self._prefix + name)

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content in pieces of CHUNK_BYTES; raises ObjectMissing."""
        # In ranges: a server closes a connection that is read as slowly as a batch runs.
        start, size = 0, 1
        while start < size:
            try:
                part = call(
                    self._client().get_object,
                    Bucket=self._bucket,
                    Key=self._prefix + name,
                    Range=f"bytes={start}-{start + RANGE_BYTES - 1}",
                )
            except EmptyObject:
                return
            size = int(part["ContentRange"].rpartition("/")[2])
            with contextlib.closing(part["Body"]) as body:
                content = call(body.read)
            for offset in range(0, len(content), CHUNK_BYTES):
                yield content[offset : offset + CHUNK_BYTES]
            start += len(content)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are ignored."""
        for name in names:
            with contextlib.suppress(ObjectMissing):
                call(self._client().delete_object, Bucket=self._bucket, Key=self._prefix + name)

    def names(self, prefix: str, before: float) -> Iterator[str]:
        """Yield the names that begin with `prefix` and were written before this Unix time."""
        token: dict[str, str] = {}
        while True:
            page = call(
                self._client().list_objects_v2,
                Bucket=self._bucket,
                Prefix=self._prefix + prefix,
                **token,
            )
            for each in page.get("Contents", ()):
                if each["LastModified"].timestamp() < before:
                    yield each["Key"].removeprefix(self._prefix)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _client(self) -> Any:
        with self._lock:  # boto3's sessions are not made for several threads
            if self._made is None:
                try:
                    self._made = boto3.session.Session().client("s3", config=OPTIONS)
                except (BotoCoreError, ValueError) as error:
                    raise StorageUnavailable(str(error)) from error
            return self._made


class BucketUpload:
    """See Upload. What is larger than PART_BYTES is uploaded in parts."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client, self._name = client, {"Bucket": bucket, "Key": key}
        self._buffer = bytearray()
        self._upload: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        """Append some bytes."""
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            self._send(bytes(self._buffer[:PART_BYTES]))
            del self._buffer[:PART_BYTES]

    def commit(self) -> None:
        """Make the object visible, in place of one with the same name."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        if not self._upload:
            call(self._client.put_object, **self._name, Body=rest)
            return
        if rest:
            self._send(rest)
        call(
            self._client.complete_multipart_upload,
            **self._name,
            **self._upload,
            MultipartUpload={"Parts": self._parts},
        )
        self._upload = {}

    def abort(self) -> None:
        """Drop what was written. Nothing happens after `commit`."""
        self._buffer.clear()
        if self._upload:
            with contextlib.suppress(ObjectMissing, StorageUnavailable):
                call(self._client.abort_multipart_upload, **self._name, **self._upload)
            self._upload = {}

    def _send(self, data: bytes) -> None:
        if not self._upload:
            begun = call(self._client.create_multipart_upload, **self._name)
            self._upload = {"UploadId": begun["UploadId"]}
        number = len(self._parts) + 1
        part = call(
            self._client.upload_part, **self._name, **self._upload, PartNumber=number, Body=data
        )
        self._parts.append({"PartNumber": number, "ETag": part["ETag"]})
