"""Runs a client's cells: `python cells.py MODULE` calls its functions and writes how each went.

A module has functions named after cells, each of which takes a model and maybe a key, and two
classes, AUTH_ERROR and NOT_FOUND_ERROR. NOT names the cells that cannot exist, with the reason.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import signal
import sys
import time
import traceback
import urllib.request

ORIGIN, BASE_URL, KEY = os.environ["ORIGIN"], os.environ["BASE_URL"], os.environ["API_KEY"]
API = os.environ["API"]
CELLS = os.environ["CELLS"].split(",")
ANSWER = "Paris is the capital of France."
QUESTION = "What is the capital of France?"
ENDLESS = "Count without an end."
WEATHER = 'What is the weather? [[get_weather {"city": "Paris"}]]'
SUNNY = "It says: Sunny in Paris"
ESTIMATE = 8  # of the question's tokens, where the provider counts none
CITY = {"name": "Paris", "degrees": 0.5, "capital": True}
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
    "gg=="
)
DATA_URL = f"data:image/png;base64,{PNG}"
CELL_SECONDS, QUICK_SECONDS, LEAVE_SECONDS = 60, 10, 8
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fits(cell, value):
    if cell == "whole":
        return value == ANSWER
    if cell == "streamed":
        return len(value) > 2 and "".join(value) == ANSWER
    if cell == "usage":
        return value == 42
    if cell == "count_tokens":
        return value in (42, ESTIMATE)
    if cell in ("tools", "streamed_tools"):
        return value == SUNNY
    if cell in ("structured", "json_mode"):
        return value == CITY
    if cell == "image":
        return value == "I see 1 image."
    raise ValueError(cell)


def settled(value):
    return asyncio.run(value) if inspect.isawaitable(value) else value


def provider_calls():
    """What the provider was asked in this cell."""
    return json.load(direct.open(os.environ["PROVIDER"]))


def refusal(call, expected, quick):
    started = time.monotonic()
    try:
        value = settled(call())
    except expected:
        seconds = time.monotonic() - started
        assert seconds < quick, f"the error came after {seconds:.0f} s"
    else:
        raise AssertionError(f"no error, but {value!r}")


def left(module, model):
    settled(module.cancel(model))
    end = time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < end:
        calls = provider_calls()
        if calls and all(call["closed_early"] for call in calls):
            return
        time.sleep(0.1)
    assert calls, "the provider was not called"
    raise AssertionError("the provider's stream goes on after the client has left")


def run(module, cell, model):
    quick = getattr(module, "QUICK_SECONDS", QUICK_SECONDS)
    if cell == "wrong_key":
        refusal(lambda: module.whole(model, "sk-wrong"), module.AUTH_ERROR, quick)
    elif cell == "unknown_model":
        refusal(lambda: module.whole(os.environ["NO_MODEL"]), module.NOT_FOUND_ERROR, quick)
    elif cell == "cancel":
        left(module, model)
    else:
        value = settled(getattr(module, cell)(model))
        assert fits(cell, value), f"got {value!r}"


def main():
    module = importlib.import_module(sys.argv[1])
    results = open(os.environ["RESULTS"], "w")
    for model in os.environ["MODELS"].split(","):
        for cell in CELLS:
            result = {"cell": cell, "model": model, "result": "ok", "detail": ""}
            implemented = "whole" if cell in ("wrong_key", "unknown_model") else cell
            if cell in module.NOT:
                result |= {"result": "none", "detail": module.NOT[cell]}
            elif cell == "count_tokens" and not hasattr(module, cell):
                result |= {"result": "none", "detail": "the client has no such call here"}
            elif not hasattr(module, implemented):
                result |= {"result": "failed", "detail": "the test lacks this cell"}
            else:
                label = "/".join([os.environ["ROW"], model, cell]).encode()
                direct.open(f"{ORIGIN}/label", label)
                signal.alarm(getattr(module, "CELL_SECONDS", CELL_SECONDS))
                started = time.monotonic()
                try:
                    run(module, cell, model)
                except BaseException as error:
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    where = f"{last.filename.split('site-packages/')[-1]}:{last.lineno}"
                    text = f"{type(error).__name__}: {error}"[:600]
                    result |= {"result": "failed", "detail": f"{text} ({where})"}
                signal.alarm(0)
                result["seconds"] = round(time.monotonic() - started, 2)
            results.write(json.dumps(result) + "\n")
            results.flush()
    os._exit(0)  # clients' own threads may wait for nothing


def alarmed(*_):
    raise TimeoutError("the cell did not end in time")


signal.signal(signal.SIGALRM, alarmed)
if __name__ == "__main__":
    sys.modules["cells"] = sys.modules["__main__"]
    main()
