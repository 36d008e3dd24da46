"""A stream of parts adds up to one answer."""

from gateway.chat import arguments, fold


def part(delta, index=0, **choice):
    return {"choices": [{"index": index, "delta": delta, **choice}]}


def message(*parts):
    return fold(parts)["choices"][0]["message"]


def test_arguments_are_an_object_that_can_be_written_again():
    assert arguments('{"a":[1]}') == {"a": [1]}
    deep = '{"a":' * 300 + "1" + "}" * 300  # which orjson reads and does not write
    for none in ("", "[]", "{", '"\ud800"', deep, '{"a":"\ud800"}'):
        assert arguments(none) is None


def test_nothing_folds_to_no_choices():
    assert fold([]) == {"choices": []}


def test_text_is_joined():
    assert message(part({"role": "assistant", "content": ""}), part({"content": "a"})) == {
        "role": "assistant",
        "content": "a",
        "refusal": None,
    }


class Piece(str):
    """A text that does not want to be added to another: that copies both."""

    def __add__(self, other):
        raise AssertionError("it was added to")

    __radd__ = __add__


def test_texts_are_joined_at_once():
    parts = [part({"content": Piece("a"), "reasoning_content": Piece("b")}) for _ in range(3)]
    call = {"index": 0, "id": "1", "function": {"name": Piece("f"), "arguments": Piece("{")}}
    more = {"index": 0, "function": {"arguments": Piece("}")}}
    parts += [part({"tool_calls": [each]}) for each in (call, more)]
    parts += [part({"audio": {"data": Piece("A")}})] * 2
    said = message(*parts)
    assert (said["content"], said["reasoning_content"]) == ("aaa", "bbb")
    assert said["tool_calls"] == [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    assert said["audio"] == {"data": "AA"}


def test_a_role_that_is_repeated_is_not_joined():
    assert message(part({"role": "assistant"}), part({"role": "assistant"}))["role"] == "assistant"


def test_null_takes_nothing_away():
    assert message(part({"content": "a"}), part({"content": None}))["content"] == "a"
    assert message(part({"content": None}))["content"] is None


def test_a_refusal_and_reasoning_are_joined_too():
    said = message(
        part({"refusal": "I "}),
        part({"refusal": "cannot", "reasoning_content": "Hm"}),
        part({"reasoning_content": "."}),
    )
    assert (said["refusal"], said["reasoning_content"]) == ("I cannot", "Hm.")


def test_choices_are_kept_apart_and_in_order():
    answer = fold([part({"content": "b"}, 1), part({"content": "a"}), part({"content": "b"}, 1)])
    said = [(c["index"], c["message"]["content"]) for c in answer["choices"]]
    assert said == [(0, "a"), (1, "bb")]


def test_the_end_and_what_came_with_it_are_kept():
    answer = fold([part({}, finish_reason="stop", native="x"), part({}, finish_reason=None)])
    (choice,) = answer["choices"]
    assert (choice["finish_reason"], choice["native"]) == ("stop", "x")


def test_tool_calls_are_merged_by_index():
    def call(index, **rest):
        return part({"tool_calls": [{"index": index, **rest}]})

    said = message(
        call(1, id="b", type="function", function={"name": "g", "arguments": ""}),
        call(0, id="a", type="function", function={"name": "f"}),
        call(1, function={"arguments": "{}"}),
        call(0, function={"arguments": "{"}),
        call(0, id=None, function={"arguments": "}"}),
    )
    assert said["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_log_probabilities_are_appended():
    (choice,) = fold(
        [
            part({}, logprobs={"content": [1], "refusal": None}),
            part({}, logprobs=None),
            part({}, logprobs={"content": [2], "refusal": None}),
        ]
    )["choices"]
    assert choice["logprobs"] == {"content": [1, 2], "refusal": None}


def test_the_last_usage_wins():
    parts = [{"choices": [], "usage": {"total_tokens": n}} for n in (1, 2)]
    assert fold([*parts, {"choices": [], "usage": None}])["usage"] == {"total_tokens": 2}


def test_parts_are_not_changed():
    parts = [part({"content": ["a"]}), part({"content": ["b"]})]
    fold(parts)
    assert parts == [part({"content": ["a"]}), part({"content": ["b"]})]


def test_what_comes_in_objects_is_joined_but_for_its_id():
    said = message(
        part({"audio": {"id": "audio_1", "transcript": "Hel"}}),
        part({"audio": {"id": "audio_1", "transcript": "lo", "data": "AAAA"}}),
        part({"audio": {"id": "audio_1", "data": "BBBB", "expires_at": 7}}),
    )
    assert said["audio"] == {
        "id": "audio_1",
        "transcript": "Hello",
        "data": "AAAABBBB",
        "expires_at": 7,
    }


def test_blocks_of_thinking_are_listed():
    blocks = [{"type": "thinking", "thinking": "a"}, {"type": "redacted_thinking", "data": "b"}]
    said = message(*(part({"thinking_blocks": [block]}) for block in blocks))
    assert said["thinking_blocks"] == blocks


def test_the_input_of_a_custom_tool_is_joined():
    def call(**rest):
        return part({"tool_calls": [{"index": 0, **rest}]})

    said = message(
        call(id="a", type="custom", custom={"name": "sql", "input": ""}),
        call(custom={"input": "SELECT "}),
        call(custom={"input": "1"}),
    )
    custom = {"name": "sql", "input": "SELECT 1"}
    assert said["tool_calls"] == [{"id": "a", "type": "custom", "custom": custom}]
