"""Tool calls of OpenAI-compatible upstreams, in whatever form they come, as well-formed calls.

Upstreams leave out ids, indices and types, number all calls 0, repeat names, ids or whole calls,
split names, and send arguments as objects. What follows sees each call once: with an id of its own,
a type, its whole name, and arguments as text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import orjson

from gateway.chat import CALLED, Chunk
from gateway.errors import UpstreamBadResponse
from providers import lenient_json
from providers.openai.signatures import signed_id

_DECODER = json.JSONDecoder()
_OWN = frozenset({"index", "id", "type", "name", "arguments", "parameters", *CALLED})


@dataclass(frozen=True, slots=True)
class _Piece:
    """One element of an upstream's `tool_calls`."""

    index: int | None
    id: str
    kind: str
    name: str
    text: str
    extra: Chunk

    @property
    def begins_object(self) -> bool:
        return self.kind == "function" and self.text.lstrip().startswith("{")


@dataclass(slots=True, eq=False)
class _Call:
    """One call, while it streams."""

    number: int
    kind: str
    ids: list[str] = field(default_factory=list)
    name: str = ""
    texts: list[str] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)
    extra: Chunk = field(default_factory=dict)
    sent: bool = False
    empty: bool = False  # the upstream has sent an empty object, which may stand for no arguments

    def add(self, piece: _Piece) -> None:
        if piece.id and piece.id not in self.ids:
            self.ids.append(piece.id)
        if not self.sent and piece.name:
            # Some upstreams repeat the name in each piece, or send all of it so far.
            grown = piece.name.startswith(self.name)
            self.name = piece.name if grown else self.name + piece.name
        if piece.extra:
            self.extra.update(piece.extra)
        if self.kind == "function" and not self.texts and piece.text.strip() == "{}":
            self.empty = True
        elif piece.text:
            self.texts.append(piece.text)
            self.unsent.append(piece.text)

    def complete(self) -> bool:
        """Return whether the arguments are a whole object."""
        if self.kind != "function":
            return True
        if not self.texts:
            return self.empty
        return self.texts[-1].rstrip().endswith("}") and self.arguments() is not None

    def arguments(self) -> Any:
        """Return the arguments as an object; None if they are not one yet."""
        return _object("".join(self.texts))


class ToolCalls:
    """The tool calls of one choice of a stream. They come out one after the other.

    `seed` makes the ids of calls that have none.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._current = 0  # number of the call that is being sent
        self._used_ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, elements: Iterable[Any], final: bool = False) -> list[Chunk]:
        """Return the deltas to send after these elements of an upstream's `tool_calls`.

        A call is sent once its arguments begin: until then, its name may grow. With `final`, all
        that is left is sent. Raises UpstreamBadResponse for a call that cannot be told, or that
        has no name.
        """
        touched: list[_Call] = []
        for piece in _pieces(elements):
            call = self._find(piece, touched)
            if call is None:
                call = self._begin(piece)
            elif _repeats(call, piece):
                continue
            elif call.number < self._current and piece.text.strip():
                raise UpstreamBadResponse("The provider's tool calls are mixed up in its stream.")
            call.add(piece)
            touched.append(call)
        return self._send(final)

    def _find(self, piece: _Piece, touched: list[_Call]) -> _Call | None:
        """Return the call that a piece belongs to; None for a new one."""
        call = self._candidate(piece)
        if call is None or _repeats(call, piece):
            return call
        other_id = bool(piece.id and call.ids and piece.id not in call.ids)
        if piece.begins_object and call.texts and call.complete():
            return None  # an object after an object
        goes_on = call.texts and piece.text and not piece.begins_object and not call.complete()
        if other_id and piece.name:
            return call if goes_on else None
        if piece.name and not piece.id:
            same = piece.name == call.name
            if call.texts and not same:
                return None
            if call in touched and not goes_on and not (same and piece.index is not None):
                return None  # two calls in one chunk
        return call

    def _candidate(self, piece: _Piece) -> _Call | None:
        if not self._calls:
            return None
        last = self._calls[-1]
        call = last if piece.index is None else self._by_index.get(piece.index)
        if piece.id and (call is None or piece.id not in call.ids):
            for other in reversed(self._calls):
                if piece.id in other.ids and piece.index in (None, other.number):
                    return other
        if call is None and not piece.name and not piece.id and not last.complete():
            return last
        return call

    def _begin(self, piece: _Piece) -> _Call:
        call = _Call(len(self._calls), piece.kind)
        if not piece.name and self._calls and piece.begins_object:
            call.name = self._calls[-1].name  # an object after an object, of the same tool
        self._calls.append(call)
        self._by_index[call.number if piece.index is None else piece.index] = call
        return call

    def _send(self, final: bool) -> list[Chunk]:
        deltas = []
        while self._current < len(self._calls):
            call = self._calls[self._current]
            others = self._current + 1 < len(self._calls)
            done = final or (others and call.complete())
            if delta := self._delta(call, done):
                deltas.append(delta)
            if not done:
                break
            self._current += 1
        return deltas

    def _delta(self, call: _Call, done: bool) -> Chunk | None:
        text = "".join(call.unsent)
        if call.sent:
            if not text and not call.extra:
                return None
            delta = {"index": call.number, **call.extra}
            if text:
                delta[call.kind] = {CALLED[call.kind]: text}
        elif call.name and (text or done):
            if not text and call.kind == "function":
                text = "{}"
            delta = {"index": call.number, **_whole(call, text, self._seed, self._used_ids)}
        elif done:
            raise UpstreamBadResponse("The provider's tool call has no name.")
        else:
            return None
        call.sent, call.unsent, call.extra = True, [], {}
        return delta


def whole_calls(elements: Iterable[Any], seed: str = "") -> list[Chunk]:
    """Return the calls of a whole response, each well-formed; raises UpstreamBadResponse.

    `seed` makes the ids of calls that have none.
    """
    calls: list[Chunk] = []
    used_ids: set[str] = set()
    for piece in _pieces(elements):
        call = _Call(len(calls), piece.kind)
        call.add(piece)
        if not call.name:
            raise UpstreamBadResponse("The provider's tool call has no name.")
        text = "".join(call.texts) or ("{}" if call.kind == "function" else "")
        calls.append(_whole(call, text, seed, used_ids))
    return calls


def text_of(value: Any) -> str:
    """Return the arguments of a call as text: some upstreams send an object."""
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value).decode()


def _whole(call: _Call, text: str, seed: str, used_ids: set[str]) -> Chunk:
    ident = call.ids[0] if call.ids else ""
    if not ident or ident in used_ids:
        digest = hashlib.sha256(f"{seed} {call.number} {call.name}".encode()).hexdigest()
        ident = f"call_{digest[:24]}"
    used_ids.add(ident)
    called = {"name": call.name, CALLED[call.kind]: text}
    ident = signed_id(ident, call.extra.get("extra_content"))
    return {"id": ident, "type": call.kind, call.kind: called, **call.extra}


def _repeats(call: _Call, piece: _Piece) -> bool:
    """Return whether a piece is the call once more, from an upstream that sends it twice."""
    if not piece.begins_object or not call.texts:
        return False
    if piece.id and piece.id not in call.ids:
        return False
    if not piece.id and not (piece.name == call.name and call.ids):
        return False
    return call.complete() and _object(piece.text) == call.arguments()


def _pieces(elements: Iterable[Any]) -> Iterator[_Piece]:
    """Yield the pieces of calls in `tool_calls`; raises UpstreamBadResponse.

    Arguments that are several objects are those of several calls of one tool.
    """
    for piece in filter(None, map(_piece, elements)):
        first, *others = _objects(piece.text) if piece.begins_object else [piece.text]
        yield replace(piece, text=first)
        for text in others:
            yield replace(piece, id="", text=text, extra={})


def _objects(text: str) -> list[str]:
    """Return the objects in a text that is nothing but several of them; else the text itself."""
    ends = [0]
    while rest := text[ends[-1] :].lstrip():
        begin = len(text) - len(rest)
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            return [text]
        if not isinstance(value, dict):
            return [text]
        ends.append(end)
    return [text[a:b].strip() for a, b in pairwise(ends)] if len(ends) > 2 else [text]


def _piece(element: Any) -> _Piece | None:
    """Return an element of `tool_calls`; None if it holds nothing. Raises UpstreamBadResponse."""
    if element is None:
        return None
    if not isinstance(element, dict):
        raise UpstreamBadResponse()
    kind = "custom" if element.get("custom") or element.get("type") == "custom" else "function"
    called = element.get(kind)
    if called is None:
        called = element  # as in the Responses API
    if not isinstance(called, dict):
        raise UpstreamBadResponse()
    words = called.get(CALLED[kind])
    name, text = called.get("name"), text_of(called.get("parameters") if words is None else words)
    if not isinstance(name, (str, type(None))):
        raise UpstreamBadResponse()
    index, ident = element.get("index"), element.get("id")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    piece = _Piece(
        index if type(index) is int else None,
        str(ident) if isinstance(ident, (str, int)) else "",
        kind,
        name or "",
        text,
        {key: value for key, value in element.items() if key not in _OWN and value is not None},
    )
    return piece if piece.id or piece.name or piece.text or piece.extra else None


def _object(text: str) -> Any:
    try:
        value = lenient_json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
