"""Content parts of a message as Anthropic's content blocks: text, images and documents."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gateway.errors import InvalidRequest
from providers.anthropic.refusals import invalid, unsupported

Block: TypeAlias = dict[str, Any]
BlockMaker: TypeAlias = Callable[[Mapping[str, Any], str], Block]

# Media types of data URLs -> those that Anthropic reads.
IMAGES = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/gif": "image/gif",
    "image/webp": "image/webp",
}
PDF = "application/pdf"
TEXT = "text/plain"
PDF_OPENING = "JVBERi"  # base64 of "%PDF": clients may leave the media type out
CACHE_FIELDS = ("type", "ttl", "scope")  # Anthropic refuses others; `scope` needs a beta
MAX_TITLE = 500  # characters of a document's title


def blocks(content: Any, path: str, makers: Mapping[str, BlockMaker]) -> list[Block]:
    """Return content as blocks, without empty text, which Anthropic refuses.

    Raises InvalidRequest for a part of a type that is not among `makers`.
    """
    if content is None or isinstance(content, str):
        return [text(content)] if content and content.strip() else []
    result = []
    for i, part in enumerate(content):
        make = makers.get(part.get("type"))
        if make is None:
            raise unsupported(f"{path}[{i}]", f"does not support type '{part.get('type')}'")
        block = make(part, f"{path}[{i}]")
        if block["type"] != "text" or block["text"].strip():
            result.append(marked(block, part))
        elif result:
            marked(result[-1], part)
    return result


def text(content: str) -> Block:
    """Return a block of text."""
    return {"type": "text", "text": content}


def marked(block: Block, source: Mapping[str, Any]) -> Block:
    """Return the block with the cache breakpoint of its source, if that has one."""
    control = source.get("cache_control")
    if isinstance(control, Mapping) and control.get("type") == "ephemeral":
        block["cache_control"] = {k: v for k, v in control.items() if k in CACHE_FIELDS and v}
    return block


def _image(part: Mapping[str, Any], path: str) -> Block:
    path = f"{path}.image_url.url"
    url: str = part["image_url"]["url"]
    if url[:6].lower() == "https:":
        # Passed on, never fetched: it could point into this network.
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(url)
    if not media_type:
        raise unsupported(path, "must be an https or a base64 data URL")
    if media_type not in IMAGES:
        raise unsupported(path, f"must be one of {', '.join(sorted(set(IMAGES.values())))}")
    source = {"type": "base64", "media_type": IMAGES[media_type], "data": data}
    return {"type": "image", "source": source}


def _document(part: Mapping[str, Any], path: str) -> Block:
    file = part["file"]
    encoded = file.get("file_data")
    if not encoded:
        raise unsupported(f"{path}.file", "must hold 'file_data'")
    block: Block = {"type": "document", "source": _source(encoded, path)}
    if title := (file.get("filename") or "").strip()[:MAX_TITLE]:
        block["title"] = title
    return block


def _source(encoded: str, path: str) -> Block:
    if encoded[:6].lower() == "https:":
        return {"type": "url", "url": encoded}
    media_type, data = _data_url(encoded)
    if not media_type and encoded.startswith(PDF_OPENING):
        media_type, data = PDF, encoded
    if media_type == PDF:
        return {"type": "base64", "media_type": PDF, "data": data}
    if media_type == TEXT:
        return {"type": "text", "media_type": TEXT, "data": _decoded(data, path)}
    what = f"must be an https URL, or a base64 data URL of {PDF} or {TEXT}"
    raise unsupported(f"{path}.file.file_data", what)


def _data_url(url: str) -> tuple[str, str]:
    """Return media type and data of a base64 data URL; both are empty for anything else."""
    head, encoded, data = url.partition(";base64,")
    if not encoded or head[:5].lower() != "data:":
        return "", ""
    return head[5:].partition(";")[0].lower(), data


def _decoded(data: str, path: str) -> str:
    try:
        content = base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        content = ""
    if not content.strip():
        raise _no_text(path)
    return content


def _no_text(path: str) -> InvalidRequest:
    # Raised outside `except`: that exception holds the caller's data, which no log may have.
    return invalid(f"{path}.file.file_data", "expected base64 of UTF-8 text that is not empty")


TEXT_PARTS: dict[str, BlockMaker] = {
    "text": lambda part, path: text(part["text"]),
    "refusal": lambda part, path: text(part["refusal"]),
}
ALL_PARTS: dict[str, BlockMaker] = {**TEXT_PARTS, "image_url": _image, "file": _document}
