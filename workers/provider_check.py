"""`python -m workers.provider_check`: ask each configured provider for its models, which is free.

Prints a line of JSON for each key: `provider`, `key` (its number), `ok` (null: the provider does
not say) and `text`. `flask doctor` runs it, since only the worker speaks HTTP to providers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import orjson
import requests

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ProviderRow
from gateway.settings import ConfigurationError, Settings
from providers.anthropic import wire as anthropic
from providers.base import Endpoint
from workers.google_tokens import service_account
from workers.providers import http_session

SECONDS = 10.0
REFUSED = (401, 403)
UNKNOWN = (404, 405, 501)  # no list of models: nothing is known of the key


def check(
    row: ProviderRow, settings: Settings, session: requests.Session
) -> Iterator[dict[str, Any]]:
    """Yield what the provider says to each of its keys."""
    ok: bool | None
    for number, key in enumerate(row.keys(settings) or ("",), 1):
        try:
            if row.auth == "google":
                credentials, request = service_account(key, session)
                credentials.refresh(request)
                ok, text = True, "Google gives an access token"
            else:
                ok, text = _ask_for_models(_endpoint(row, settings, key), session, bool(key))
        except requests.RequestException as error:
            ok, text = False, f"no answer ({type(error).__name__})"
        except Exception as error:
            # Not its text, which may quote the key.
            ok, text = False, f"cannot be called ({type(error).__name__})"
        yield {"provider": row.name, "key": number, "ok": ok, "text": text}


def _endpoint(row: ProviderRow, settings: Settings, key: str) -> Endpoint:
    headers = {**row.headers, row.key_header: key} if row.key_header else row.headers
    key = "" if row.key_header else key
    address = row.address(settings)
    if row.wire == "anthropic":
        return anthropic.endpoint(address, "/models", key, headers)
    return Endpoint.build(address, "/models", key, headers)


def _ask_for_models(
    endpoint: Endpoint, session: requests.Session, keyed: bool
) -> tuple[bool | None, str]:
    with session.get(
        endpoint.url, headers=endpoint.headers, timeout=SECONDS, allow_redirects=False, stream=True
    ) as response:
        status = response.status_code
    if status in REFUSED:
        return False, f"refuses the key ({status})"
    if status in UNKNOWN:
        return None, f"answers, and has no list of models to try the key with ({status})"
    if status >= 400:
        return None, f"answers {status}"
    return True, "takes the key" if keyed else "answers"


def main() -> int:
    """Exit code: 0, or 2 for a configuration that cannot work."""
    try:
        settings = Settings.from_env()
        catalogue = Catalogue.load(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"configuration: {error}\n")
        return 2
    session = http_session(settings)
    for name in catalogue.configured():
        row = catalogue.providers[name]
        if not row.demo:
            for result in check(row, settings, session):
                sys.stdout.write(orjson.dumps(result).decode() + "\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
