"""Logging of both processes: lines on standard output, in which secrets are masked.

A line may have fields: `log.info("call completed", extra={"fields": {...}})`. Text shows them as
`name=value` behind the message, JSON as fields of the object. A field without a value (None or "")
is left out.
"""

from __future__ import annotations

import json
import logging
import re
import select
import sys
from _thread import RLock
from collections import Counter
from collections.abc import Mapping
from typing import Any, TextIO

import gevent
from gevent import monkey
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from gateway.settings import Settings

HELD = 50  # lines that are held at most
HELD_SECONDS = 0.1
# A pipe that poll() says to be ready takes PIPE_BUF bytes without a wait; a character takes 4.
PIECE = select.PIPE_BUF // 4  # characters

SECRET = re.compile(
    r"(mk_inference_[0-9A-Za-z]{4})[0-9A-Za-z_]+|\b((?:sk-|xai-|gsk_|AIza)[\w-]{4})[\w-]+|(Bearer\s+)\S+"
    r"|((?:rediss?|postgres(?:ql)?)://[^:/@\s]*:)[^@\s]+(?=@)",
    re.IGNORECASE,
)
# Each match of SECRET has one of these. The pattern takes 35 µs for the line of a call.
SIGNS = ("mk_inference_", "sk-", "xai-", "gsk_", "aiza", "bearer", "://")
PLAIN = re.compile(r"[\w./:@+*\n-]*", re.ASCII).fullmatch  # needs no quotes; a value in each line
NO_FIELDS: Mapping[str, Any] = {}

TALLY_SECONDS = 1.0


def mask(text: str) -> str:
    """Return the text with keys, bearer tokens and passwords in URLs cut off."""
    if not _may_hold_secret(text):
        return text
    return SECRET.sub(lambda match: next(group for group in match.groups() if group) + "***", text)


def _may_hold_secret(text: str) -> bool:
    return any(map(text.lower().__contains__, SIGNS))


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", NO_FIELDS)
    return fields


class MaskingFormatter(logging.Formatter):
    """Formats a line as text, fields and exception included, and masks the result."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if fields := _fields(record):
            shown = {
                name: str(value)
                for name, value in fields.items()
                if value is not None and value != ""
            }
            values = "\n".join(shown.values())  # looked at together: nearly all lines are plain
            if not PLAIN(values) or values.count("\n") >= len(shown):
                shown = {name: _quoted(value) for name, value in shown.items()}
            text = " ".join([text, *map("=".join, shown.items())])
        return mask(text)


def _quoted(text: str) -> str:
    """A value in a line of text: in quotes where it could be taken for something else."""
    return text if PLAIN(text) and "\n" not in text else json.dumps(text)


class JsonFormatter(OrjsonFormatter):
    """Formats a line as an object of JSON, and masks its texts."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="time",
            reserved_attrs=[*RESERVED_ATTRS, "fields", "fault"],
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data |= {
            name: value
            for name, value in _fields(record).items()
            if value is not None and value != ""
        }

    def serialize_log_record(self, log_data: dict[str, Any]) -> str:
        line: str = super().serialize_log_record(log_data)
        if not _may_hold_secret(line):
            return line
        # Text by text: a masked line would not be JSON.
        masked = {
            name: mask(value) if isinstance(value, str) else value
            for name, value in log_data.items()
        }
        line = super().serialize_log_record(masked)
        return line


FORMATTERS = {
    "text": lambda: MaskingFormatter("%(levelname)s %(name)s %(message)s"),
    "json": JsonFormatter,
}


class PatientHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, and drops lines rather than wait for whoever should read them.

    A full pipe would stop the whole process, with all its calls. The number of dropped lines is
    written as soon as somebody reads again. Lines with fields, up to INFO, are held for
    HELD_SECONDS, and formatted and written together, which takes a third of the time.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.dropped = 0
        self._held: list[logging.LogRecord] = []
        self._poll: Any = None
        try:
            # gevent's takes a turn of the loop, and a log line may come from any thread.
            self._poll = monkey.get_original("select", "poll")()
            self._poll.register(stream.fileno(), select.POLLOUT)
        except (OSError, ValueError):  # no file
            self._poll = None

    def createLock(self) -> None:
        """Make the handler's lock: the system's, since nothing waits or switches greenlets here.

        gevent's takes as long as to format a line.
        """
        super().createLock()  # which also has it made anew after a fork
        self.lock = RLock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or the part of it that can be written without a wait."""
        try:
            if self._poll is None:
                self.stream.write(self._line(record))
                super().flush()
                return
            self._held.append(record)
            if record.levelno > logging.INFO or not _fields(record) or len(self._held) >= HELD:
                self.flush()
            elif len(self._held) == 1:
                gevent.spawn_later(HELD_SECONDS, self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write the lines that are held, as far as that takes no wait."""
        with self.lock:  # type: ignore[union-attr]
            records, self._held = self._held, []
            if records:
                self._write("".join(map(self._line, records)))

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + self.terminator
        except Exception:
            self.handleError(record)
            return ""

    def _write(self, held: str) -> None:
        notice = ""
        if self.dropped:
            about = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
            text = f"{self.dropped} lines dropped: nobody read"
            notice = self._line(logging.makeLogRecord({**about, "msg": text}))
        lines = notice + held
        size = select.PIPE_BUF if lines.isascii() else PIECE
        for start in range(0, len(lines), size):
            if not self._poll.poll(0):
                self.dropped += held.count("\n", max(start - len(notice), 0))
                return
            self.stream.write(lines[start : start + size])
            self.stream.flush()
        self.dropped = 0


def configure(settings: Settings) -> None:
    """Send all logs of this process to standard output, as Heroku-style platforms expect.

    Errors go to Sentry as well if SENTRY_DSN is set; raises ConfigurationError if that cannot be.
    """
    handler = PatientHandler(sys.stdout)
    handler.setFormatter(FORMATTERS[settings.log_format]())
    # Nothing shows threads and places in the code: a line of a call is half as dear. gunicorn's
    # lines show the process.
    logging.logThreads = logging.logMultiprocessing = False
    setattr(logging, "_srcfile", None)  # noqa: B010  (as the logging HOWTO says: Optimization)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    if settings.sentry_dsn:
        from gateway.sentry import SentryHandler  # only here: it is an extra, and takes 20 MB

        logging.getLogger().addHandler(SentryHandler(settings))
    # It logs a provider's broken header with a traceback; the call's own error is enough.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    # At DEBUG, urllib3 logs addresses; at INFO, RQ logs its jobs.
    for name in ("urllib3", "rq", "rq.worker"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Tally:
    """Logs what may happen to many calls at once: one line a second, with counts.

    `text` is the line; it has one `%s`, for the counts.
    """

    def __init__(self, log: logging.Logger, text: str) -> None:
        self._log, self._text = log, text
        self._counts: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Count one; the line comes within a second."""
        if not self._counts:
            gevent.spawn_later(TALLY_SECONDS, self.write)
        self._counts[what] += 1

    def write(self) -> None:
        """Log what was counted since the last line."""
        counts, self._counts = self._counts, Counter()
        if counts:
            self._log.warning(
                self._text, ", ".join(f"{count} {what}" for what, count in counts.items())
            )


def log_fault(log: logging.Logger, error: BaseException, text: str, *args: object) -> None:
    """Log an unforeseen exception: a text with its arguments, its type and its place.

    Not its own text nor its traceback, which may quote a prompt or an answer.
    """
    place = type(error).__name__, where(error)
    log.error(f"{text}: %s at %s", *args, *place, extra={"fault": error})


def where(error: BaseException) -> str:
    """Return the innermost place that an exception came from: file name and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
