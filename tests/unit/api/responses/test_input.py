"""Input items of other services, of agents and of earlier turns never lock a conversation."""

import pytest

from api.responses.request import chat_request

PNG = "data:image/png;base64,iVBORw0KGgo="
HI = {"type": "message", "role": "user", "content": "hi"}
USER = {"role": "user", "content": "hi"}


def request(*items):
    return chat_request({"model": "m", "input": list(items)})


def messages(*items):
    return request(*items).parameters["messages"]


LEFT_OUT = [
    {"type": "web_search_call", "id": "ws_1", "status": "completed",
     "action": {"type": "search", "query": "x"}},
    {"type": "file_search_call", "id": "fs_1", "queries": ["x"], "results": None},
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "outputs": []},
    {"type": "image_generation_call", "id": "ig_1", "result": "aGk=", "status": "completed"},
    {"type": "mcp_list_tools", "id": "m_1", "server_label": "x", "tools": []},
    {"type": "mcp_call", "id": "m_2", "name": "x", "arguments": "{}", "output": "y"},
    {"type": "mcp_approval_request", "id": "m_3"},
    {"type": "tool_search_call", "call_id": "c1", "arguments": {"query": "x"},
     "execution": "client"},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"},
    {"type": "context_compaction", "encrypted_content": None},
    {"type": "compaction_trigger"},
    {"type": "local_shell_call", "id": "x", "call_id": None, "action": {"type": "exec"}},
    {"type": "local_shell_call_output", "id": "unheard_of", "output": "x"},
    {"type": "other"},
    {"type": "an_item_of_tomorrow", "content": 7, "call_id": {}, "tools": None},
]  # fmt: skip


@pytest.mark.parametrize("item", LEFT_OUT, ids=lambda item: item["type"])
def test_an_item_that_only_its_service_can_use_is_left_out_and_named(item):
    checked = request(HI, item)
    assert checked.parameters == {"messages": [USER]}
    assert checked.ignored == [f"input.{item['type']}"]


CLIENT_CALLS = [
    ("local_shell_call", {"action": {"type": "exec", "command": ["ls"]}},
     '{"type":"exec","command":["ls"]}'),
    ("shell_call", {"action": {"commands": ["ls"]}}, '{"commands":["ls"]}'),
    ("apply_patch_call", {"operation": {"type": "delete_file", "path": "a"}},
     '{"type":"delete_file","path":"a"}'),
    ("computer_call", {"action": {"type": "screenshot"}}, '{"type":"screenshot"}'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "arguments"), CLIENT_CALLS)
@pytest.mark.parametrize("answer", ["own", "function"])
def test_a_call_that_a_client_has_run_is_a_function_call(kind, fields, arguments, answer):
    output = f"{kind}_output" if answer == "own" else "function_call_output"
    items = [
        HI,
        {"type": kind, "call_id": "c1", "status": "completed", **fields},
        {"type": output, "call_id": "c1", "output": "ok"},
    ]
    function = {"name": kind.removesuffix("_call"), "arguments": arguments}
    assert messages(*items) == [
        USER,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ]


def test_a_call_and_an_output_without_ids_are_left_out():
    items = [HI, {"type": "local_shell_call", "action": {}}, {"type": "local_shell_call_output"}]
    checked = request(*items)
    assert checked.parameters["messages"] == [USER]
    assert checked.ignored == ["input.local_shell_call", "input.local_shell_call_output"]


def test_an_output_that_is_no_text_becomes_json():
    items = [
        {"type": "shell_call", "call_id": "c1", "action": {}},
        {"type": "shell_call_output", "call_id": "c1", "output": [{"stdout": "a"}]},
    ]
    assert messages(*items)[1]["content"] == '[{"stdout":"a"}]'


def test_a_message_of_another_agent_is_the_user_s():
    content = [
        {"type": "input_text", "text": "Do it."},
        {"type": "encrypted_content", "encrypted_content": "gAAAA"},
    ]
    item = {"type": "agent_message", "author": "/root", "recipient": "/a", "content": content}
    checked = request(item)
    assert checked.parameters["messages"] == [
        {"role": "user", "content": "Message from /root:\nDo it."}
    ]
    assert checked.ignored == ["input.encrypted_content"]


def test_an_agent_message_without_a_readable_text_is_left_out():
    content = [{"type": "encrypted_content", "encrypted_content": "gAAAA"}]
    item = {"type": "agent_message", "author": "/root", "content": content}
    assert messages(HI, item) == [USER]


def test_parts_of_any_role_are_taken_from_any_role():
    (message,) = messages({"role": "user", "content": [{"type": "output_text", "text": "x"}]})
    assert message == {"role": "user", "content": "x"}
    content = [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": PNG}]
    checked = request({"role": "assistant", "content": content})
    assert checked.parameters["messages"] == [{"role": "assistant", "content": "x"}]
    assert checked.ignored == ["input.input_image"]
    (message,) = messages({"role": "developer", "content": content})
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]
    refusal = [{"type": "refusal", "refusal": "No."}]
    assert messages({"role": "user", "content": refusal}) == [{"role": "user", "content": "No."}]


CHAT_PARTS = [
    {"type": "image_url", "image_url": {"url": PNG}},
    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "flac"}},
]


@pytest.mark.parametrize("part", CHAT_PARTS, ids=lambda part: part["type"])
def test_images_audio_video_and_files_are_taken_as_chat_has_them(part):
    assert messages({"role": "user", "content": [part]}) == [{"role": "user", "content": [part]}]


def test_audio_by_its_address_is_audio():
    def audio(url):
        (message,) = messages(
            {"role": "user", "content": [{"type": "input_audio", "audio_url": url}]}
        )
        return message["content"][0]

    assert audio("data:audio/mpeg;base64,AAAA") == {
        "type": "input_audio",
        "input_audio": {"data": "AAAA", "format": "mp3"},
    }
    assert audio("https://example.com/a.mp3")["type"] == "audio_url"


def test_a_part_of_tomorrow_is_left_out_and_named():
    content = [{"type": "input_text", "text": "x"}, {"type": "hologram", "data": "AA"}]
    checked = request({"role": "user", "content": content})
    assert checked.parameters["messages"] == [{"role": "user", "content": "x"}]
    assert checked.ignored == ["input.hologram"]


NOTHING = [
    {"role": "user", "content": []},
    {"role": "developer", "content": None},
    {"role": "system", "content": ""},
    {"type": "reasoning", "id": "rs_1", "summary": None},
    {"type": "reasoning", "id": "rs_1", "encrypted_content": None},
]


@pytest.mark.parametrize("item", NOTHING)
def test_an_item_without_content_changes_nothing(item):
    assert messages(item, HI) == [USER]


def test_an_empty_answer_is_taken_back():
    empty = {"type": "message", "role": "assistant", "content": []}
    assert messages(HI, empty, HI) == [USER, {"role": "assistant", "content": ""}, USER]


@pytest.mark.parametrize(
    ("arguments", "sent"), [({"a": 1}, '{"a":1}'), (None, "{}"), ("", ""), ('{"a": 1}', '{"a": 1}')]
)
def test_arguments_in_any_form_become_json(arguments, sent):
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    assert messages(call)[0]["tool_calls"][0]["function"]["arguments"] == sent


def test_outputs_and_inputs_may_be_null():
    items = [
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": None},
        {"type": "custom_tool_call_output", "call_id": "c", "output": None},
    ]
    call, output = messages(*items)
    assert call["tool_calls"][0]["custom"]["input"] == ""
    assert output["content"] == ""


def test_an_output_of_no_call_that_a_client_puts_in_is_a_text():
    item = {"type": "function_call_output", "name": "context", "output": "It is late."}
    assert messages(HI, item)[1] == {"role": "user", "content": "It is late."}


def test_reasoning_has_the_text_of_any_kind_of_part():
    item = {"type": "reasoning", "summary": [], "content": [{"type": "text", "text": "Hm."}]}
    (message,) = messages(item, {"role": "assistant", "content": "x"})
    assert message["reasoning_content"] == "Hm."


def test_an_output_follows_its_call_whatever_came_between():
    def call(call_id):
        return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}

    def output(call_id):
        return {"type": "function_call_output", "call_id": call_id, "output": call_id}

    items = [call("a"), call("b"), output("b"), HI, output("a"), call("a"), HI, output("a"), HI]
    told = [
        [each["id"] for each in message["tool_calls"]]
        if message.get("tool_calls")
        else message.get("tool_call_id", message["role"])
        for message in messages(*items)
    ]
    assert told == [["a", "b"], "b", "a", "user", ["a"], "a", "user", "user"]
