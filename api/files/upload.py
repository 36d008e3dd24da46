"""Receives a file as multipart/form-data and passes it on to the storage while it arrives."""

from __future__ import annotations

from typing import Any, cast

import orjson
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

from api.http.body import arriving
from api.schemas.errors import invalid
from gateway.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from gateway.files.storage import Storage, Upload
from gateway.stalls import give_turn

MAX_BYTES = 209_715_200  # 200 MiB: what OpenAI takes as the input of a batch
FORM_BYTES = 262_144  # of each other field, and of what the parser of the form holds
MAX_PARTS = 20
CHECKED_BYTES = 1_048_576  # the first line is checked if it is not longer
TURN_BYTES = 1_048_576  # after which others have their turn: a fast client would take the CPU
FIELD = "file"


class Received:
    """A file whose content is on its way into the storage, as `name`.

    `fields` are the other fields of the form. Nobody sees the file before `commit`.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.size = 0
        self._storage, self._name = storage, name
        self._upload: Upload | None = None
        self._first_line = bytearray()
        self._turn = 0

    def read(self, environ: dict[str, Any], timeout: float) -> None:
        """Read the request's body, for `timeout` seconds and as long as it moves.

        Raises InvalidRequest, UnsupportedMedia, PayloadTooLarge, BodyTimeout, StorageUnavailable.
        """
        media, options = parse_options_header(environ.get("CONTENT_TYPE", ""))
        boundary = options.get("boundary", "")
        if media.lower() != "multipart/form-data" or not boundary:
            raise UnsupportedMedia(
                "Unsupported media type: send 'Content-Type: multipart/form-data' with a boundary."
            )
        start: Any = self._start  # werkzeug writes, rewinds and closes what it returns
        parser = MultiPartParser(start, FORM_BYTES, max_form_parts=MAX_PARTS)
        with arriving(environ, MAX_BYTES + FORM_BYTES, timeout) as body:
            try:
                fields, files = parser.parse(cast(Any, body), boundary.encode(), body.length)
            except ValueError:
                body.check()
                raise InvalidRequest(
                    "The request body is not valid multipart/form-data.", code="invalid_multipart"
                ) from None
            except RequestEntityTooLarge:
                raise PayloadTooLarge(f"A form may have {MAX_PARTS} small fields.") from None
            body.check()
        for name, value in fields.items(multi=True):
            if name in self.fields:
                raise invalid("wrong.value", name[:64], reason="it must not be repeated")
            self.fields[name] = value
        if self._upload is None:
            raise invalid("missing", FIELD)
        if list(files) != [FIELD]:
            raise invalid("extra_forbidden", next(name for name in files if name != FIELD)[:64])

    def check_first_line(self) -> None:
        """Raise InvalidRequest if the first line is not an object of JSON."""
        line, newline, _ = bytes(self._first_line).lstrip().partition(b"\n")
        if not line or (len(line) > CHECKED_BYTES and not newline):
            return
        try:
            valid = isinstance(orjson.loads(line), dict)
        except orjson.JSONDecodeError:
            valid = False
        if not valid:
            raise InvalidRequest(
                "Invalid file: line 1 is not a JSON object. Each line must be a request such as "
                '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}.',
                param=FIELD,
                code="invalid_json_line",
            )

    def commit(self) -> None:
        """Make the file visible. Raises StorageUnavailable."""
        assert self._upload is not None
        self._upload.commit()

    def abort(self) -> None:
        """Drop the content, unless it was committed."""
        if self._upload is not None:
            self._upload.abort()

    def write(self, data: bytes) -> int:
        """Pass a piece of the content on to the storage."""
        assert self._upload is not None
        self.size += len(data)
        if self.size > MAX_BYTES:
            raise PayloadTooLarge(f"The file is too large: at most {MAX_BYTES} bytes are allowed.")
        if len(self._first_line) <= CHECKED_BYTES and b"\n" not in self._first_line:
            self._first_line += data
        self._upload.write(data)
        self._turn += len(data)
        if self._turn >= TURN_BYTES:
            self._turn = 0
            give_turn()
        return len(data)

    def seek(self, *_: int) -> int:
        """Do nothing: werkzeug rewinds a file that it has written."""
        return 0

    def close(self) -> None:
        """Do nothing: werkzeug closes the files of a form."""

    def _start(self, *, filename: str | None = None, **_: Any) -> Any:
        if self._upload is not None:
            raise invalid("wrong.value", FIELD, reason="send one file in a request")
        self.filename = (filename or "").rpartition("/")[2][:255]
        self._upload = self._storage.create(self._name)
        return self
