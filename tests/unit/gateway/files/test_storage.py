"""Storages of files: a folder, and a bucket of a server with the API of S3."""

from __future__ import annotations

import shutil
import time

import pytest

from gateway.files import bucket as buckets
from gateway.files.folder import FolderStorage
from gateway.files.storage import CHUNK_BYTES, ObjectMissing, StorageUnavailable, open_storage, put
from gateway.settings import ConfigurationError, Settings
from tests.support import s3

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def s3_env():
    with s3.bucket() as env:
        yield env


@pytest.fixture(params=["file", "s3"])
def storage(request, tmp_path, monkeypatch):
    if request.param == "file":
        return open_storage(Settings(files_url=f"file://{tmp_path}/a%20folder"))
    for name, value in request.getfixturevalue("s3_env").items():
        monkeypatch.setenv(name, value)
    return open_storage(Settings(files_url=f"s3://{s3.BUCKET}/{tmp_path.name}/"))


def test_what_is_written_is_read(storage):
    content = [b"a" * 70_000] * 10
    assert put(storage, "files/one", content) == 700_000
    pieces = list(storage.read("files/one"))
    assert b"".join(pieces) == b"".join(content)
    assert max(map(len, pieces)) <= CHUNK_BYTES


@pytest.mark.parametrize(
    "size", [0, 1, buckets.PART_BYTES - 1, buckets.PART_BYTES, 2 * buckets.PART_BYTES + 1]
)
def test_objects_of_all_sizes_are_whole(storage, size):
    content = bytes(range(251)) * (size // 251 + 1)
    put(storage, "one", [content[:size]])
    assert b"".join(storage.read("one")) == content[:size]


def test_an_object_is_replaced(storage):
    put(storage, "one", [b"before"])
    put(storage, "one", [b"after"])
    assert b"".join(storage.read("one")) == b"after"


def test_nobody_sees_an_object_that_is_being_written(storage):
    upload = storage.create("one")
    upload.write(b"a" * (buckets.PART_BYTES + 1))
    with pytest.raises(ObjectMissing):
        next(storage.read("one"))
    upload.abort()
    with pytest.raises(ObjectMissing):
        next(storage.read("one"))
    assert list(storage.names("", time.time() + 60)) == []


def test_objects_are_deleted(storage):
    put(storage, "one", [b"1"])
    storage.delete(["one", "two"])
    with pytest.raises(ObjectMissing):
        next(storage.read("one"))


def test_names_are_listed_by_their_beginning_and_age(storage):
    for name in ("a/1", "a/2", "b/1"):
        put(storage, name, [b"1"])
    assert sorted(storage.names("a/", time.time() + 60)) == ["a/1", "a/2"]
    assert list(storage.names("a/", time.time() - 60)) == []


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable):
        put(FolderStorage(str(tmp_path / "file")), "one", [b"1"])


def test_a_folder_that_goes_away_is_unavailable(tmp_path):
    upload = FolderStorage(str(tmp_path / "files")).create("one")
    upload.write(b"1")
    shutil.rmtree(tmp_path / "files")
    with pytest.raises(StorageUnavailable):
        upload.commit()
    upload.abort()


def test_a_bucket_that_does_not_exist_is_unavailable(s3_env, monkeypatch):
    for name, value in s3_env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        put(open_storage(Settings(files_url="s3://another")), "one", [b"1"])


def test_a_server_that_is_away_is_unavailable(s3_env, monkeypatch):
    for name, value in {**s3_env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable):
        open_storage(Settings(files_url="s3://files")).delete(["one"])


def test_without_files_url_there_is_no_storage():
    assert open_storage(Settings()) is None


@pytest.mark.parametrize(
    "url", ["http://a/b", "file://host/a", "file://", "s3://", "s3://a?b=c", "folder"]
)
def test_another_address_is_refused(url):
    with pytest.raises(ConfigurationError, match=r"^FILES_URL must be file:///FOLDER"):
        Settings.from_env({"KEY_PEPPER": "p" * 40, "FILES_URL": url})
