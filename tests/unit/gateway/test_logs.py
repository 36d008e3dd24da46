"""gateway/logs.py: what a log line may not hold."""

from __future__ import annotations

import json
import logging
import os

import gevent
import pytest

from gateway import logs
from gateway.logs import JsonFormatter, MaskingFormatter, PatientHandler, mask, where
from gateway.settings import Settings

KEY = "mk_inference_AbCdEfGh1234_" + "s" * 43 + "c" * 6


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (KEY, "mk_inference_AbCd***"),
        (f"key '{KEY}' refused", "key 'mk_inference_AbCd***' refused"),
        (KEY.upper(), "MK_INFERENCE_ABCD***"),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer ***"),
        ("authorization: bearer abc.def", "authorization: bearer ***"),
        ("sk-proj-abcdefghijk", "sk-proj***"),
        ("Incorrect API key: sk-ant-api03-abc_def.", "Incorrect API key: sk-ant-***."),
        ("redis://:hunter2@r.example:6379/0", "redis://:***@r.example:6379/0"),
        ("rediss://user:hunter2@r.example", "rediss://user:***@r.example"),
        ("redis://h:p%40ss/w@r", "redis://h:***@r"),
        ("postgres://u:hunter2@h/d", "postgres://u:***@h/d"),
        (f"{KEY} and sk-abcdefgh", "mk_inference_AbCd*** and sk-abcd***"),
    ],
)  # fmt: skip
def test_secrets_are_cut_off(text, masked):
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "redis://127.0.0.1:6379/0",
        "call 0123456789abcdef0123456789abcdef ended",
        "a risk-adjusted task-force",
        "the bearer",
        "provider at https://api.example/v1",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert mask(text) == text


def test_arguments_of_a_message_are_masked():
    record = logging.LogRecord("name", logging.INFO, "file.py", 1, "key %s", (KEY,), None)
    assert MaskingFormatter("%(message)s").format(record) == "key mk_inference_AbCd***"


FIELDS = {"call_id": "c1", "model": 'a "b" c', "key": KEY, "attempts": 0, "cause": "", "more": None}


def with_fields(**fields):
    record = logging.LogRecord("name", logging.INFO, "file.py", 1, "call %s", ("x",), None)
    record.fields = fields
    return record


def test_fields_stand_behind_the_message_and_those_without_a_value_are_left_out():
    line = MaskingFormatter("%(message)s").format(with_fields(**FIELDS))
    assert line == r'call x call_id=c1 model="a \"b\" c" key=mk_inference_AbCd*** attempts=0'


def test_a_field_cannot_begin_a_line_of_its_own():
    line = MaskingFormatter("%(message)s").format(with_fields(model="a\nERROR b"))
    assert line == r'call x model="a\nERROR b"'
    line = MaskingFormatter("%(message)s").format(with_fields(model="a\nERROR", call_id="c1"))
    assert line == r'call x model="a\nERROR" call_id=c1'


def test_a_line_of_json_is_one_object_and_its_texts_are_masked():
    record = with_fields(**FIELDS, url="Bearer abc")
    record.created = 1_700_000_000.0
    assert json.loads(JsonFormatter().format(record)) == {
        "level": "INFO",
        "logger": "name",
        "message": "call x",
        "time": "2023-11-14T22:13:20+00:00",
        "call_id": "c1",
        "model": 'a "b" c',
        "key": "mk_inference_AbCd***",
        "attempts": 0,
        "url": "Bearer ***",
    }


def test_an_exception_in_json_is_one_masked_text():
    try:
        raise ValueError(f"no such key: {KEY}")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("name", logging.ERROR, "file.py", 1, "failed", None, info)
    told = json.loads(JsonFormatter().format(record))["exception"]
    assert told.startswith("Traceback")
    assert told.endswith("ValueError: no such key: mk_inference_AbCd***")


def test_an_exception_and_its_traceback_are_masked():
    try:
        raise ValueError(f"no such key: {KEY}")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("name", logging.ERROR, "file.py", 1, "failed", None, info)
    told = MaskingFormatter("%(message)s").format(record)
    assert "ValueError: no such key: mk_inference_AbCd***" in told
    assert "ssss" not in told


@pytest.fixture
def own_logging(monkeypatch):
    """Lets a test configure logging without taking pytest's handlers away."""
    monkeypatch.setattr(logging.root, "handlers", [])
    for name in ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    names = (None, "urllib3", "urllib3.connection", "rq", "rq.worker")
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    logging.getLogger("rq.worker").setLevel(logging.INFO)  # as importing RQ does
    yield
    for logger, level in levels.items():
        logger.setLevel(level)


def test_lines_go_to_standard_output_and_are_masked(own_logging, capsys):
    logs.configure(Settings(log_level="DEBUG"))
    logging.getLogger("gateway.test").debug("hello %s", KEY)
    for chatty in ("urllib3.connectionpool", "rq.worker"):
        logging.getLogger(chatty).info("chatter")
    logging.getLogger("urllib3.connection").warning("Failed to parse headers", exc_info=True)
    written = capsys.readouterr()
    assert written.out == "DEBUG gateway.test hello mk_inference_AbCd***\n"
    assert written.err == ""


def test_lines_are_json_where_that_is_configured(own_logging, capsys):
    logs.configure(Settings(log_format="json"))
    logging.getLogger("gateway.test").info("hello", extra={"fields": {"call_id": "c1"}})
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["message"], line["call_id"]) == ("INFO", "hello", "c1")


def test_lines_of_gunicorn_can_show_the_process(own_logging, caplog):
    logs.configure(Settings())
    formatter = logging.Formatter("%(process)d")
    record = logging.getLogger("gunicorn.error").makeRecord("g", 20, "", 0, "hello", (), None)
    assert formatter.format(record) == str(os.getpid())


def test_the_level_is_the_configured_one(own_logging, capsys):
    logs.configure(Settings(log_level="WARNING"))
    logging.getLogger("gateway.test").info("quiet")
    logging.getLogger("gateway.test").warning("loud")
    assert capsys.readouterr().out == "WARNING gateway.test loud\n"


def test_a_fault_is_placed_where_it_happened():
    with pytest.raises(ZeroDivisionError) as caught:
        _fail()
    line = _fail.__code__.co_firstlineno + 1
    assert where(caught.value) == f"test_logs.py:{line}"
    assert where(ValueError("never raised")) == "?"


def _fail():
    return 1 // 0


@pytest.fixture
def pipe():
    """A full pipe, and a logger that writes to it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 1024)
    os.set_blocking(writing, True)
    logger = logging.Logger("pipe")
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        handler = PatientHandler(stream)
        logger.addHandler(handler)
        yield reader, logger


def read_all(reader):
    """What the pipe holds."""
    os.set_blocking(reader.fileno(), False)
    data = b""
    while piece := reader.read(1 << 20):
        data += piece
    return data.lstrip(b"x").decode()


def test_a_log_that_nobody_reads_does_not_stop_the_process(pipe):
    reader, logger = pipe
    for number in range(1_000):
        logger.warning("line %d", number)  # none waits
    assert read_all(reader) == ""
    logger.warning("somebody reads")
    logger.warning("again")
    assert read_all(reader) == ("1000 lines dropped: nobody read\nsomebody reads\nagain\n")


def test_a_line_is_cut_where_the_pipe_is_full(pipe):
    reader, logger = pipe
    read_all(reader)
    logger.warning("\N{GRINNING FACE}" * 1_000_000)
    cut = read_all(reader)
    assert 0 < len(cut) < 1_000_000
    logger.warning("next")
    assert read_all(reader) == "1 lines dropped: nobody read\nnext\n"


def test_lines_of_calls_are_written_together_and_in_order(pipe):
    reader, logger = pipe
    read_all(reader)
    for number in range(3):
        logger.info("call %d", number, extra={"fields": {"number": number}})
    assert read_all(reader) == ""
    logger.warning("a warning")
    assert read_all(reader) == "call 0\ncall 1\ncall 2\na warning\n"


def test_lines_that_are_held_are_written_within_a_moment(pipe):
    reader, logger = pipe
    read_all(reader)
    logger.info("call", extra={"fields": {"number": 1}})
    gevent.sleep(2 * logs.HELD_SECONDS)
    assert read_all(reader) == "call\n"


def test_lines_that_are_held_are_written_at_the_end(pipe):
    reader, logger = pipe
    read_all(reader)
    logger.info("call", extra={"fields": {"number": 1}})
    logger.handlers[0].flush()  # as logging.shutdown does
    assert read_all(reader) == "call\n"
