from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from api.openapi import components
from api.openapi.components import REF, REQUESTS, RESPONSES, component_schemas


def shape(name, **fields):
    return TypedDict(name, fields)


@pytest.fixture
def shapes(monkeypatch):
    """A function that puts these requests and answers in the place of the service's own."""

    def put(requests, answers):
        adapters = {name: TypeAdapter(kind) for name, kind in requests.items()}
        monkeypatch.setattr(components, "REQUESTS", adapters)
        monkeypatch.setattr(components, "RESPONSES", answers)
        return component_schemas([*answers, *requests])

    return put


def test_a_shape_comes_with_all_that_it_refers_to():
    schemas = component_schemas(["ChatCompletion"])
    assert {"ChatCompletion", "CompletionChoice", "Usage"} <= schemas.keys()
    assert "ChatCompletionChunk" not in schemas


def test_nothing_has_a_title():
    schemas = component_schemas([*REQUESTS, *RESPONSES])
    assert not any("title" in schema for schema in schemas.values())
    assert not any(
        "title" in field
        for schema in schemas.values()
        for field in schema.get("properties", {}).values()
    )


def test_docstrings_are_descriptions(shapes):
    class Documented(TypedDict):
        """What it is."""

        field: int

    schemas = shapes({}, {"Documented": Documented})
    assert schemas["Documented"]["description"] == "What it is."


def test_what_two_shapes_share_is_there_once(shapes):
    part = shape("Part", text=str)
    schemas = shapes({"Ask": shape("A", part=part)}, {"Answer": shape("Answer", parts=list[part])})
    assert schemas.keys() == {"Answer", "Ask", "Part"}


def test_another_shape_of_the_same_name_is_called_after_its_owner(shapes):
    mine, other = shape("Part", text=str), shape("Part", number=int)
    schemas = shapes({"Ask": shape("A", part=other)}, {"Answer": shape("Answer", part=mine)})
    assert schemas["Part"]["properties"].keys() == {"text"}
    assert schemas["AskPart"]["properties"].keys() == {"number"}
    assert schemas["Ask"]["properties"]["part"] == {"$ref": f"{REF}AskPart"}
    assert schemas["Answer"]["properties"]["part"] == {"$ref": f"{REF}Part"}


def test_what_refers_to_a_renamed_shape_is_another_shape_too(shapes):
    mine, other = shape("Inner", text=str), shape("Inner", number=int)
    one, two = shape("Outer", inner=mine), shape("Outer", inner=other)
    schemas = shapes({"Ask": shape("A", outer=two)}, {"Answer": shape("Answer", outer=one)})
    assert schemas["Ask"]["properties"]["outer"] == {"$ref": f"{REF}AskOuter"}
    assert schemas["AskOuter"]["properties"]["inner"] == {"$ref": f"{REF}AskInner"}
    assert schemas["Outer"]["properties"]["inner"] == {"$ref": f"{REF}Inner"}


def test_a_union_of_shapes_is_a_shape(shapes):
    one, two = shape("One", type=Literal["one"]), shape("Two", type=Literal["two"])
    schemas = shapes({}, {"Either": Annotated[one | two, "either"]})
    refs = [{"$ref": f"{REF}One"}, {"$ref": f"{REF}Two"}]
    assert schemas["Either"] == {"anyOf": refs}
