"""Reports of errors to Sentry: a handler for the log. Its SDK is an extra, requirements-sentry.txt.

A report holds the masked message, the ids of a call, and of an exception its types and the lines of
code that it passed. The texts of exceptions, which may quote a prompt, and the values of variables
are left out. A client without integrations adds nothing of a request, and no earlier log lines.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from gateway.logs import mask, where
from gateway.settings import ConfigurationError, Settings

SAME_SECONDS = 10.0  # at most one report of the same error in so many
MAX_SAME = 1_000  # errors that are told apart
FLUSH_SECONDS = 1.0  # for the last reports of a process


class SentryHandler(logging.Handler):
    """Sends each record from ERROR on to the project of SENTRY_DSN, in the background.

    Raises ConfigurationError if the SDK is missing or the DSN cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import sentry_sdk
            from sentry_sdk.utils import BadDsn, event_from_exception
        except ImportError:
            raise ConfigurationError(
                "SENTRY_DSN needs Sentry's SDK: pip install -r requirements-sentry.txt"
            ) from None
        self._event_of = event_from_exception
        self._sent: dict[tuple[str, ...], float] = {}
        try:
            self._client = sentry_sdk.Client(
                dsn=settings.sentry_dsn,
                release=settings.release,
                default_integrations=False,
                auto_enabling_integrations=False,
                auto_session_tracking=False,
                send_client_reports=False,
                include_local_variables=False,
                max_request_body_size="never",
                max_breadcrumbs=0,
                before_send=_without_texts,
            )
        except BadDsn:
            # Not quoted: it holds a key.
            raise ConfigurationError("SENTRY_DSN must be the DSN of a project of Sentry") from None
        super().__init__(logging.ERROR)  # last: logging flushes what it knows at the end

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record, unless the same was reported a moment ago."""
        try:
            fault, fields = getattr(record, "fault", None), getattr(record, "fields", {})
            same = (
                record.name,
                str(record.msg),
                where(fault) if fault is not None else "",
                str(fields.get("route", "")),
            )
            now = time.monotonic()
            if now < self._sent.get(same, 0.0):
                return
            if len(self._sent) >= MAX_SAME:
                self._sent.clear()
            self._sent[same] = now + SAME_SECONDS
            event: dict[str, Any] = {}
            if fault is not None:
                event, _ = self._event_of(fault, client_options=self._client.options)
            event |= {
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": mask(record.getMessage()),
                "tags": {
                    name: mask(str(value))
                    for name, value in fields.items()
                    if value is not None and value != ""
                },
            }
            self._client.capture_event(event)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait a moment for the reports that are on their way."""
        self._client.flush(timeout=FLUSH_SECONDS)


def _without_texts(event: dict[str, Any], hint: object) -> dict[str, Any]:
    for exception in (event.get("exception") or {}).get("values", ()):
        exception["value"] = ""
    return event
