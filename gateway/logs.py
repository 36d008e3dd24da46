"""Logging of both processes: lines on standard output, with whatever looks like a secret masked."""

from __future__ import annotations

import logging
import re
import sys

from gateway.settings import Settings

SECRET = re.compile(
    r"(mk_inference_[0-9A-Za-z]{4})[0-9A-Za-z_]+|\b((?:sk-|xai-|gsk_|AIza)[\w-]{4})[\w-]+|(Bearer\s+)\S+"
    r"|(redis(?:s)?://[^:/@\s]*:)[^@\s]+(?=@)",
    re.IGNORECASE,
)


def mask(text: str) -> str:
    """The text with keys, bearer tokens and passwords in URLs cut off."""
    return SECRET.sub(lambda found: next(group for group in found.groups() if group) + "***", text)


class MaskingFormatter(logging.Formatter):
    """Formats a record, exception included, and masks the result."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def configure(settings: Settings) -> None:
    """Send everything of this process to standard output, as Heroku-style platforms expect."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(MaskingFormatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # It shows a broken head of an answer, with a traceback: the call's own error says enough.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    # urllib3 logs addresses at DEBUG, RQ its jobs at INFO.
    for name in ("urllib3", "rq", "rq.worker"):
        logging.getLogger(name).setLevel(logging.WARNING)


def where(fault: BaseException) -> str:
    """The innermost place in the code that a fault came from: file name and line."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
