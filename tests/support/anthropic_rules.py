"""What Anthropic's Messages API is documented to refuse, written without a look at our own code.

Sources: platform.claude.com/docs ("Messages", "Tool use", "Extended thinking", "Prompt caching",
"Structured outputs", "PDF support") and the types of Anthropic's Python client, read in
November 2026.
"""

import re

TOP = set(
    "model max_tokens messages stream system thinking output_config temperature top_p top_k"
    " stop_sequences tools tool_choice metadata service_tier".split()
)
IN_TURN = {
    "user": {"text", "image", "document", "tool_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}
THOUGHT = {"thinking", "redacted_thinking"}
IMAGE_KINDS = {"image/jpeg", "image/png", "image/gif", "image/webp"}
EFFORTS = {"low", "medium", "high", "xhigh", "max"}
SCHEMA_WORDS = set(
    "type enum const description title default required $ref $defs definitions properties items"
    " additionalProperties anyOf allOf format minItems".split()
)


def violations(body):
    """Every rule that a Messages request breaks, in words; empty for a request that is taken."""
    problems = []

    def rule(holds, words):
        if not holds:
            problems.append(words)

    rule(body.keys() <= TOP, f"unknown fields: {sorted(body.keys() - TOP)}")
    rule(type(body["max_tokens"]) is int and body["max_tokens"] >= 1, "max_tokens below 1")
    check_turns(body["messages"], rule)
    check_tool_turns(body["messages"], rule)
    check_system(body.get("system", "x"), rule)
    check_sampling(body, rule)
    check_thinking(body, rule)
    check_tools(body, rule)
    check_caching(body, rule)
    check_output(body.get("output_config", {}), rule)
    rule(body.get("service_tier", "auto") in ("auto", "standard_only"), "service_tier")
    rule(0 < len(body.get("metadata", {"user_id": "x"})["user_id"]) <= 256, "metadata.user_id")
    return problems


def check_turns(turns, rule):
    rule(turns, "no messages")
    check_system_turns(turns, rule)
    turns = without_system(turns)
    for i, turn in enumerate(turns):
        rule(turn.keys() == {"role", "content"}, f"{i}: fields of a message")
        rule(turn["role"] == ("user", "assistant")[i % 2], f"{i}: turns do not alternate")
        rule(turn["content"], f"{i}: empty turn")
        for block in turn["content"]:
            rule(block["type"] in IN_TURN[turn["role"]], f"{i}: {block['type']} in this turn")
            check_block(block, f"{i}: {block['type']}", rule)
        kinds = [block["type"] in THOUGHT for block in turn["content"]]
        rule(kinds[0] or not any(kinds), f"{i}: thinking in a turn that begins without it")
        rule(not all(kinds), f"{i}: nothing but thinking")
    last = turns[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        text = last["content"][-1]["text"]
        rule(text == text.rstrip(), "the final assistant text ends in white space")


def without_system(turns):
    return [turn for turn in turns if turn["role"] != "system"]


def check_system_turns(turns, rule):
    """Source: platform.claude.com/docs, "Mid-conversation system messages"."""
    roles = ["assistant", *(turn["role"] for turn in turns), "assistant"]
    for before, role, after in zip(roles, roles[1:], roles[2:], strict=False):
        if role == "system":
            rule(before == "user", "a system turn that follows no turn of the user")
            rule(after == "assistant", "a system turn before another than the assistant's")
    for turn in turns:
        if turn["role"] == "system":
            check_system(turn["content"], rule)


def check_block(block, where, rule):
    kind = block["type"]
    if kind == "text":
        rule(block["text"].strip(), f"{where} is empty")
    elif kind == "image":
        check_image(block["source"], where, rule)
    elif kind == "document":
        source = block["source"]
        pdf = source["type"] == "base64" and source["media_type"] == "application/pdf"
        text = source["type"] == "text" and source["media_type"] == "text/plain"
        web = source["type"] == "url" and source["url"].startswith("https://")
        rule(web or ((pdf or text) and source["data"]), f"{where}: source")
        rule(1 <= len(block.get("title", "x")) <= 500, f"{where}: title")
    elif kind == "thinking":
        rule(isinstance(block["thinking"], str) and block["signature"], f"{where}: unsigned")
    elif kind == "redacted_thinking":
        rule(block["data"], f"{where}: no data")
    elif kind == "tool_use":
        rule(re.fullmatch("[a-zA-Z0-9_-]+", block["id"]), f"{where}: id")
        rule(re.fullmatch("[a-zA-Z0-9_-]{1,128}", block["name"]), f"{where}: name")
        rule(isinstance(block["input"], dict), f"{where}: input")
    elif kind == "tool_result":
        for inner in block.get("content", ()):
            rule(inner["type"] in ("text", "image", "document"), f"{where}: {inner['type']} inside")
            check_block(inner, f"{where}: {inner['type']}", rule)


def check_image(source, where, rule):
    if source["type"] == "url":
        rule(source["url"].lower().startswith("https:"), f"{where}: URL")
    else:
        rule(source["type"] == "base64" and source["data"], f"{where}: source")
        rule(source["media_type"] in IMAGE_KINDS, f"{where}: media type")


def check_tool_turns(turns, rule):
    turns = without_system(turns)
    used = []
    for i, turn in enumerate(turns):
        results = [b["type"] == "tool_result" for b in turn["content"]]
        rule(results == sorted(results, reverse=True), f"{i}: results after other blocks")
        answered = [b["tool_use_id"] for b in turn["content"] if b["type"] == "tool_result"]
        before = turns[i - 1]["content"] if i else []
        called = [b["id"] for b in before if b["type"] == "tool_use"]
        rule(sorted(answered) == sorted(called), f"{i}: results of other calls than those before")
        used += [b["id"] for b in turn["content"] if b["type"] == "tool_use"]
    rule(len(set(used)) == len(used), "ids of tool calls are not unique")
    last = turns[-1]["content"]
    rule(all(b["type"] != "tool_use" for b in last), "a tool call without its result")


def check_system(system, rule):
    blocks = system if isinstance(system, list) else [{"type": "text", "text": system}]
    for block in blocks:
        rule(block["type"] == "text" and block["text"].strip(), "system: empty or no text")


def check_sampling(body, rule):
    rule(0 <= body.get("temperature", 1) <= 1, "temperature")
    rule(0 <= body.get("top_p", 1) <= 1, "top_p")
    rule(not {"temperature", "top_p"} <= body.keys(), "temperature together with top_p")
    rule(body.get("top_k", 0) >= 0, "top_k")
    rule(all(stop.strip() for stop in body.get("stop_sequences", ())), "a blank stop sequence")


def check_thinking(body, rule):
    config = body.get("thinking", {"type": "disabled"})
    kinds = ("enabled", "adaptive", "disabled", "between_tools")
    rule(config["type"] in kinds, "thinking.type")
    if config["type"] == "enabled":
        budget = config["budget_tokens"]
        rule(1024 <= budget < body["max_tokens"], "thinking.budget_tokens")
        turns = without_system(body["messages"])
        if turns[-1]["content"][0]["type"] == "tool_result":
            first = turns[-2]["content"][0]["type"]
            rule(first in THOUGHT, "a tool's use goes on without the thinking before it")
    if config["type"] in ("enabled", "adaptive"):
        turns = without_system(body["messages"])
        rule(body.get("temperature", 1) == 1, "thinking with a temperature")
        rule(body.get("top_p", 1) >= 0.95, "thinking with a low top_p")
        rule("top_k" not in body, "thinking with top_k")
        choice = body.get("tool_choice", {"type": "auto"})["type"]
        rule(choice in ("auto", "none"), "thinking with a forced tool")
        rule(turns[-1]["role"] == "user", "thinking with a begun answer")


def check_tools(body, rule):
    tools = body.get("tools", [])
    names = [tool["name"] for tool in tools]
    rule(len(set(names)) == len(names), "two tools of one name")
    for tool in tools:
        rule(re.fullmatch("[a-zA-Z0-9_-]{1,128}", tool["name"]), "name of a tool")
        rule(tool["input_schema"]["type"] == "object", "input_schema of no object")
        if tool.get("strict"):
            check_schema(tool["input_schema"], rule)
    uses = any(b["type"] == "tool_use" for turn in body["messages"] for b in turn["content"])
    rule(tools or not uses, "tools are used and not declared")
    choice = body.get("tool_choice")
    if choice:
        rule(tools, "tool_choice without tools")
        rule(choice["type"] in ("auto", "any", "tool", "none"), "tool_choice")
        rule(choice["type"] != "tool" or choice["name"] in names, "tool_choice of no tool")
        single = "disable_parallel_tool_use" in choice
        rule(choice["type"] != "none" or not single, "disable_parallel_tool_use with none")


def check_caching(body, rule):
    blocks = list(body.get("tools", []))
    blocks += body["system"] if isinstance(body.get("system"), list) else []
    for turn in body["messages"]:
        for block in turn["content"]:
            blocks += [*block.get("content", ()), block]
    marked = [block for block in blocks if "cache_control" in block]
    for block in marked:
        rule(block.get("type") not in THOUGHT, "a breakpoint on thinking")
        rule(block["cache_control"]["type"] == "ephemeral", "cache_control.type")
    lives = [block["cache_control"].get("ttl") or "5m" for block in marked]
    rule(len(lives) <= 4, "more than four breakpoints")
    rule(lives == sorted(lives), "a breakpoint of an hour after one of five minutes")


def check_output(config, rule):
    rule(config.get("effort", "low") in EFFORTS, "output_config.effort")
    if "format" in config:
        rule(config["format"]["type"] == "json_schema", "output_config.format.type")
        check_schema(config["format"]["schema"], rule)


def check_schema(schema, rule):
    if not isinstance(schema, dict):
        return
    rule(schema.keys() <= SCHEMA_WORDS, f"schema: {sorted(schema.keys() - SCHEMA_WORDS)}")
    if schema.get("type") == "object":
        rule(schema.get("additionalProperties") is False, "schema: an open object")
    rule(schema.get("minItems", 0) in (0, 1), "schema: minItems")
    for word in ("properties", "$defs", "definitions"):
        for inner in schema.get(word, {}).values():
            check_schema(inner, rule)
    for inner in (*schema.get("anyOf", ()), *schema.get("allOf", ()), schema.get("items")):
        check_schema(inner, rule)
