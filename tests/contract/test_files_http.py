"""/files, with OpenAI's client and with requests that it does not send."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from threading import Barrier, Event, Semaphore, Thread

import openai
import orjson
import pytest

from api.openapi.document import document
from api.services import services
from app import PREFIX
from gateway.errors import InvalidRequest
from gateway.files.records import UPLOAD_SECONDS, FileRecord, FileStore
from gateway.files.storage import StorageUnavailable, open_storage
from gateway.queue import keys
from tests.contract.test_openapi import check

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
FILE = ("input.jsonl", LINE)


@pytest.fixture
def settings(settings, tmp_path):
    return dataclasses.replace(settings, files_url=f"file://{tmp_path}", files_per_key=5)


@pytest.fixture
def storage(settings):
    return open_storage(settings)


@pytest.fixture
def files(make_openai, key):
    return make_openai(key).files


@pytest.fixture
def post(client, auth):
    def post(headers=auth, **fields):
        data = {
            name: (io.BytesIO(value[1]), value[0]) if isinstance(value, tuple) else value
            for name, value in fields.items()
        }
        return client.post(
            f"{PREFIX}/files", data=data, headers=headers, content_type="multipart/form-data"
        )

    return post


def stored(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def test_openai_s_client_stores_reads_and_deletes_a_file(files):
    file = files.create(file=FILE, purpose="batch")
    assert (file.object, file.bytes, file.filename) == ("file", len(LINE), "input.jsonl")
    assert (file.purpose, file.status) == ("batch", "processed")
    assert file.expires_at == file.created_at + 2_592_000
    assert files.wait_for_processing(file.id) == file
    assert files.retrieve(file.id) == file
    assert files.content(file.id).read() == LINE
    assert files.delete(file.id).deleted
    for call in (files.retrieve, files.content, files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


def test_a_file_expires_after_the_time_that_its_owner_wants(files, redis):
    after = {"anchor": "created_at", "seconds": 3600}
    file = files.create(file=FILE, purpose="batch", expires_after=after)
    assert file.expires_at == file.created_at + 3600
    assert 0 < redis.ttl(keys.file(file.id)) <= 3600


def test_files_are_listed_in_pages(files):
    ids = [files.create(file=FILE, purpose="batch").id for _ in range(5)]
    assert {file.id for file in files.list()} == set(ids)
    paged = [file.id for file in files.list(limit=2)]
    assert sorted(paged) == sorted(ids)
    assert [file.id for file in files.list(limit=2, order="asc")] == paged[::-1]
    assert files.list(limit=2).has_more
    assert not files.list(limit=5).has_more
    assert files.list(purpose="batch_output").data == []


def test_the_content_of_an_expired_file_is_deleted(files, client, redis, storage, tmp_path):
    kept, expired = (files.create(file=FILE, purpose="batch").id for _ in range(2))
    (member,) = [each for each in redis.zrange(keys.FILES_EXPIRING, 0, -1) if expired in str(each)]
    redis.zadd(keys.FILES_EXPIRING, {member: 1})
    redis.delete(keys.file(expired))
    store = services(client.application).files
    assert store.sweep(storage) == 1
    assert store.sweep(storage) == 0
    assert [path.name for path in stored(tmp_path)] == [kept]
    assert [file.id for file in files.list()] == [kept]


def test_the_content_of_a_deleted_file_is_deleted(files, client, storage, tmp_path):
    files.delete(files.create(file=FILE, purpose="batch").id)
    assert services(client.application).files.sweep(storage) == 1
    assert stored(tmp_path) == []


OTHER_KEY = "0" * 12


def record(file_id, size, key_id=OTHER_KEY):
    return FileRecord(file_id, key_id, "a.jsonl", size, "batch_output", 0, 4_000_000_000)


def room(store, file_id, size, key_id=OTHER_KEY):
    """Take room for a file, and add it."""
    with store.room(key_id, file_id, size):
        store.add(record(file_id, size, key_id))


def test_a_key_cannot_store_more_than_its_quota(make_openai, make_key):
    files = make_openai(make_key()).files
    ids = [files.create(file=FILE, purpose="batch").id for _ in range(5)]
    with pytest.raises(openai.BadRequestError, match="limited to 5 files") as refused:
        files.create(file=FILE, purpose="batch")
    assert (refused.value.code, refused.value.type) == (
        "file_storage_quota_exceeded",
        "invalid_request_error",
    )
    assert make_openai(make_key()).files.create(file=FILE, purpose="batch")  # of another key
    files.delete(ids[0])
    assert files.create(file=FILE, purpose="batch")


def test_the_bytes_of_a_key_s_files_are_bounded(redis):
    store = FileStore(redis, 100, 10)
    room(store, "a", 60)
    with pytest.raises(InvalidRequest, match="limited to 100 bytes"):
        room(store, "b", 41)
    room(store, "b", 40)


def test_an_upload_that_fails_gives_its_room_back(post):
    for _ in range(6):
        assert post(purpose="batch", file=("a.txt", LINE)).status_code == 400
    assert [post(purpose="batch", file=FILE).status_code for _ in range(6)] == [200] * 5 + [400]


def test_uploads_at_once_cannot_exceed_the_quota(redis):
    store, arrived, done = FileStore(redis, 1_000, 10), Barrier(8), []

    def upload(number):
        arrived.wait(10)
        try:
            with store.room(OTHER_KEY, str(number), 300):
                done.append(number)
                tried.release()
                all_tried.wait(10)
        except InvalidRequest:
            tried.release()

    all_tried, tried = Event(), Semaphore(0)
    threads = [Thread(target=upload, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert tried.acquire(timeout=10)
    assert len(done) == 3
    all_tried.set()
    for thread in threads:
        thread.join()


def test_what_a_batch_writes_counts_and_is_never_refused(redis):
    store = FileStore(redis, 100, 10)
    store.add(record("out", 500))
    with pytest.raises(InvalidRequest):
        room(store, "a", 1)
    store.delete(record("out", 500))
    room(store, "a", 1)


def test_a_deleted_file_takes_room_while_a_batch_needs_it(redis, storage):
    store = FileStore(redis, 100, 10)
    room(store, "a", 100)
    store.delete(record("a", 100), until=redis.time()[0] + 1)
    with pytest.raises(InvalidRequest):
        room(store, "b", 1)
    redis.zadd(keys.FILES_EXPIRING, {f"{OTHER_KEY}/a": 1})
    store.sweep(storage)
    room(store, "b", 1)


def test_the_room_of_an_upload_whose_process_died_is_given_back(redis, storage):
    store = FileStore(redis, 100, 10)
    upload = store.room(OTHER_KEY, "a", 100)
    upload.__enter__()
    ((member, until),) = redis.zrange(keys.FILES_EXPIRING, 0, -1, withscores=True)
    assert 0 < until - redis.time()[0] <= UPLOAD_SECONDS
    redis.zadd(keys.FILES_EXPIRING, {member: 1})
    store.sweep(storage)
    room(store, "b", 100)
    upload.__exit__(None, None, None)  # or its cleanup would run at some later time


def test_a_key_does_not_see_the_files_of_another(files, make_openai, make_key):
    id = files.create(file=FILE, purpose="batch").id
    others = make_openai(make_key()).files
    assert others.list().data == []
    for call in (others.retrieve, others.content, others.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            call(id)
    assert files.retrieve(id)


def test_an_operator_sees_all_files_and_uploads_none(files, make_openai, make_key):
    id = files.create(file=FILE, purpose="batch").id
    operators = make_openai(make_key(operator=True)).files
    assert [file.id for file in operators.list()] == [id]
    assert operators.content(id).read() == LINE
    with pytest.raises(openai.PermissionDeniedError):
        operators.create(file=FILE, purpose="batch")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "file", "missing_required_parameter"),
        ({"purpose": "batch"}, "file", "missing_required_parameter"),
        ({"file": "text", "purpose": "batch"}, "file", "missing_required_parameter"),
        ({"file": FILE}, "purpose", "missing_required_parameter"),
        ({"file": FILE, "purpose": "fine-tune"}, "purpose", "invalid_value"),
        ({"file": FILE, "purpose": "batch", "magic": "1"}, "magic", "unknown_parameter"),
        ({"file": FILE, "purpose": "batch", "more": FILE}, "file", "invalid_value"),
        ({"other": FILE, "purpose": "batch"}, "other", "unknown_parameter"),
        ({"file": ("input.txt", LINE), "purpose": "batch"}, None, None),
        ({"file": ("a.jsonl", b"[]\n"), "purpose": "batch"}, "file", "invalid_json_line"),
        ({"file": ("a.jsonl", b"\xff"), "purpose": "batch"}, "file", "invalid_json_line"),
        (
            {"file": FILE, "purpose": "batch", "expires_after[seconds]": "1e4"},
            "expires_after[seconds]",
            "invalid_type",
        ),
        (
            {"file": FILE, "purpose": "batch", "expires_after[seconds]": "3599"},
            "expires_after[seconds]",
            "integer_below_min_value",
        ),
        (
            {"file": FILE, "purpose": "batch", "expires_after[anchor]": "now"},
            "expires_after[anchor]",
            "invalid_value",
        ),
    ],
)
def test_a_wrong_form_is_refused_and_leaves_nothing(post, tmp_path, fields, param, code):
    response = post(**fields)
    assert response.status_code == 400, response.text
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "media", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"{}", "multipart/form-data", 415, "unsupported_media_type"),
        (b"{}", "multipart/form-data; boundary=x", 400, "invalid_multipart"),
        (b"--x\r\nno header", "multipart/form-data; boundary=x", 400, "invalid_multipart"),
        (
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n"
            + b"b" * 300_000
            + b"\r\n--x--",
            "multipart/form-data; boundary=x",
            413,
            "request_too_large",
        ),
    ],
)
def test_what_is_no_form_is_refused(client, auth, tmp_path, body, media, status, code):
    response = client.post(f"{PREFIX}/files", data=body, headers=auth, content_type=media)
    assert (response.status_code, response.get_json()["error"]["code"]) == (status, code)
    assert stored(tmp_path) == []


def test_a_file_that_is_too_large_is_refused_before_it_is_read(client, auth, tmp_path):
    response = client.post(
        f"{PREFIX}/files",
        data=b"--x\r\n",
        environ_overrides={"CONTENT_LENGTH": "300000000"},
        headers=auth,
        content_type="multipart/form-data; boundary=x",
    )
    assert response.status_code == 413
    assert stored(tmp_path) == []


def test_a_body_that_ends_early_is_refused_and_leaves_nothing(client, auth, tmp_path):
    head = b'--x\r\nContent-Disposition: form-data; name=file; filename="a.jsonl"\r\n\r\n'
    response = client.post(
        f"{PREFIX}/files",
        data=head + LINE,
        environ_overrides={"CONTENT_LENGTH": "10000"},
        headers=auth,
        content_type="multipart/form-data; boundary=x",
    )
    assert response.status_code == 400
    assert response.get_json()["error"]["code"] == "incomplete_body"
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "order=up", "after=none", "purpose=vision", "magic=1"]
)
def test_a_wrong_query_is_refused(client, auth, query):
    response = client.get(f"{PREFIX}/files?{query}", headers=auth)
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == query.partition("=")[0]


def test_without_a_storage_files_are_not_configured(make_client, settings, auth):
    client = make_client(dataclasses.replace(settings, files_url=""))
    for method, path in [("POST", ""), ("GET", ""), ("GET", "/file-1"), ("GET", "/file-1/content")]:
        response = client.open(f"{PREFIX}/files{path}", method=method, headers=auth)
        assert response.status_code == 503
        assert response.headers["x-should-retry"] == "false"
        error = response.get_json()["error"]
        assert error["code"] == "files_not_configured"
        assert "FILES_URL" in error["message"]


def test_a_storage_that_is_away_is_503(make_client, settings, auth):
    class Away:
        def create(self, name):
            raise StorageUnavailable("the disk is full")

    client = make_client(settings, storage=Away())
    response = client.post(
        f"{PREFIX}/files",
        data={"purpose": "batch", "file": (io.BytesIO(LINE), "a.jsonl")},
        headers=auth,
    )
    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "files_unavailable"
    assert "disk" not in response.text
    assert response.headers["Retry-After"]


def test_a_file_whose_content_is_gone_is_404(files, tmp_path):
    id = files.create(file=FILE, purpose="batch").id
    os.unlink(stored(tmp_path)[0])
    with pytest.raises(openai.NotFoundError):
        files.content(id)


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000, 5_000_000])
def test_files_of_all_sizes_are_whole(files, size):
    content = LINE + b"b" * size
    file = files.create(file=("input.jsonl", content), purpose="batch")
    assert file.bytes == len(content)
    assert files.content(file.id).read() == content


def test_an_empty_file_can_be_read(files):
    id = files.create(file=("empty.jsonl", b""), purpose="batch").id
    assert files.content(id).read() == b""


def test_files_are_as_documented(client, auth, files):
    described = json.loads(orjson.dumps(document(client.application)))
    id = files.create(file=FILE, purpose="batch").id
    for method, path in [
        ("get", "/files"),
        ("get", "/files?limit=0"),
        ("get", "/files/{file_id}"),
        ("get", "/files/{file_id}/content"),
        ("delete", "/files/{file_id}"),
        ("get", "/files/{file_id}"),
    ]:
        address = PREFIX + path.replace("{file_id}", id)
        response = client.open(address, method=method, headers=auth)
        check(described, method, path.partition("?")[0], response)
