"""A bucket of a server with the API of S3, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "files"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which boto3 finds an empty BUCKET."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=BUCKET)
        yield {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        client.close()
    finally:
        server.stop()


def address(env: dict[str, str]) -> tuple[str, int]:
    """Host and port of the server in the environment that `bucket` yields."""
    url = urlsplit(env["AWS_ENDPOINT_URL"])
    assert url.hostname and url.port
    return url.hostname, url.port
