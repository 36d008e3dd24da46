"""The console without a browser: a session that is signed in."""

from __future__ import annotations

import requests

from tests.support.stack import PATIENCE_SECONDS, Stack


def address(stack: Stack) -> str:
    """Where the stack's console is."""
    return stack.url.replace("/inference/v1", "/console")


def sign_in(stack: Stack, key: str) -> requests.Session:
    """A session of this key; it must be closed."""
    session = requests.Session()
    form = session.get(f"{address(stack)}/sign-in", timeout=PATIENCE_SECONDS).text
    token = form.partition('name="csrf_token" value="')[2].partition('"')[0]
    data = {"csrf_token": token, "key": key}
    response = session.post(f"{address(stack)}/sign-in", data=data, timeout=PATIENCE_SECONDS)
    assert response.ok and "Sign out" in response.text, response.status_code
    return session
