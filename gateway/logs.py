"""Logging of both processes: lines on standard output, in which secrets are masked."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter

import gevent

from gateway.settings import Settings

SECRET = re.compile(
    r"(mk_inference_[0-9A-Za-z]{4})[0-9A-Za-z_]+|\b((?:sk-|xai-|gsk_|AIza)[\w-]{4})[\w-]+|(Bearer\s+)\S+"
    r"|(redis(?:s)?://[^:/@\s]*:)[^@\s]+(?=@)",
    re.IGNORECASE,
)

TALLY_SECONDS = 1.0


def mask(text: str) -> str:
    """Return the text with keys, bearer tokens and passwords in URLs cut off."""
    return SECRET.sub(lambda match: next(group for group in match.groups() if group) + "***", text)


class MaskingFormatter(logging.Formatter):
    """Formats a record, exception included, and masks the result."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def configure(settings: Settings) -> None:
    """Send all logs of this process to standard output, as Heroku-style platforms expect."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(MaskingFormatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
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


def where(error: BaseException) -> str:
    """Return the innermost place that an exception came from: file name and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
