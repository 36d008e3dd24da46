"""Decides which URLs may be passed to a provider. This service never fetches them."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from gateway.addresses import is_public

MAX_DATA_URL = 50 * 1024 * 1024  # characters
MAX_WEB_URL = 8192  # characters

DATA_IMAGE = re.compile(
    r"data:image/[a-z0-9.+-]{1,64}(;[a-z0-9=._-]{1,64}){0,4};base64,[a-z0-9+/_-]", re.I
)
DATA_MEDIA = re.compile(
    r"data:(audio|video)/[a-z0-9.+-]{1,64}(;[a-z0-9=._-]{1,64}){0,4};base64,[a-z0-9+/_-]", re.I
)
WEB = re.compile(r"\s*https?:", re.I)
# Resolvers accept an IPv4 address in any base and number of parts: `2130706433`, `0x7f.1`.
NUMERIC_HOST = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
# Names that only an inner resolver knows: RFC 6761, 6762, 7686, 8375, ICANN's .internal, and what
# home routers, Docker and Kubernetes use.
LOCAL_NAMES = (
    "local", "localhost", "localdomain", "lan", "home", "home.arpa", "internal", "intranet", "corp",
    "private", "svc", "test", "invalid", "onion",
)  # fmt: skip
LOCAL_SUFFIXES = tuple(f".{name}" for name in LOCAL_NAMES)


def is_image_url(url: str) -> bool:
    """Whether this is a `data:` URL of a base64 image, or an http(s) URL whose host may be public.

    A name that looks public and resolves to a private address passes: its text does not show that.
    """
    if url[:5].lower() == "data:":
        return len(url) <= MAX_DATA_URL and url.isascii() and DATA_IMAGE.match(url) is not None
    return is_web_url(url)


def is_media_url(url: str) -> bool:
    """Whether this is a `data:` URL of base64 audio or video, or one that `is_web_url` accepts."""
    if url[:5].lower() == "data:":
        return len(url) <= MAX_DATA_URL and url.isascii() and DATA_MEDIA.match(url) is not None
    return is_web_url(url)


def is_file_data(data: str) -> bool:
    """Whether this is anything but an http(s) URL, or an http(s) URL that `is_web_url` accepts."""
    return not WEB.match(data) or is_web_url(data)


def is_web_url(url: str) -> bool:
    """Whether this is an http(s) URL whose host may be public."""
    # Parsers disagree about backslashes, blanks and control characters.
    if len(url) > MAX_WEB_URL or not url.isprintable() or "\\" in url or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and port != 0 and _is_public(parts)


def _is_public(parts: SplitResult) -> bool:
    if not parts.hostname or "@" in parts.netloc or "%" in parts.netloc:
        return False
    # Resolvers normalize full-width digits and ideographic dots first.
    host = unicodedata.normalize("NFKC", parts.hostname).replace("。", ".").rstrip(".").lower()
    if ":" not in host and not NUMERIC_HOST.search(host):
        # A name without a dot ("redis") is one of the provider's own network.
        return "." in host and not host.endswith(LOCAL_SUFFIXES)
    try:
        return is_public(ip_address(host))
    except ValueError:
        return False
