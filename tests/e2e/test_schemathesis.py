"""What schemathesis makes of the OpenAPI document: no answer that it does not tell, and no 5xx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.stack import PATIENCE_SECONDS, Stack

pytestmark = pytest.mark.slow

# Models that answer at once and never fail by design; the last one makes vectors.
MODELS = ["demo/echo", "demo/tool"]
VECTORS = ["demo/embed"]
# Left out: a deadline of a moment is kept, and answered with 504 as told.
DEADLINE = {"$ref": "#/components/parameters/X-Request-Timeout"}
PHASES = "examples,coverage,fuzzing"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "ignored_auth,allow_header_conformance,unsupported_method"
)
OPERATORS = "/(keys|owners|audit|queue|workers)(/|$)"  # the paths that need an operator key
EXAMPLES = 10  # for each operation, beside the boundary cases of the coverage phase
LONGEST = 600  # seconds; it takes about twenty on an idle machine


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with models that answer here, so that requests get past their routing."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            parameters = [each for each in operation["parameters"] if each != DEADLINE]
            operation["parameters"] = parameters
            for parameter in parameters:
                if parameter.get("name") == "model_id":
                    parameter["schema"]["enum"] = [*MODELS, "demo/none"]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                fields = schemas[name]["properties"]
                if "model" not in fields or name == "PauseRequest":  # any name will do there
                    continue
                fields["model"]["enum"] = VECTORS if name == "EmbeddingsRequest" else MODELS
                for example in content["examples"].values():
                    example["value"]["model"] = fields["model"]["enum"][0]
    return document


@pytest.mark.parametrize(("operator", "paths"), [(False, f"^(?!{OPERATORS})"), (True, OPERATORS)])
def test_generated_requests_get_no_answer_that_is_not_documented(
    own_stack: Stack, tmp_path: Path, operator: bool, paths: str
) -> None:
    stack = own_stack  # an operator's requests change keys that the responses name
    key = stack.keys.create("operator", operator=True) if operator else stack.key
    document = requests.get(f"{stack.url}/openapi.json", timeout=PATIENCE_SECONDS).json()
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(narrowed(document)))
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(path)]
    command += ["--url", stack.url, "--header", f"Authorization: Bearer {key}"]
    command += ["--include-path-regex", paths]
    command += ["--phases", PHASES, "--checks", CHECKS, "--max-examples", str(EXAMPLES)]
    command += ["--generation-deterministic", "--continue-on-failure", "--no-color"]
    command += ["--suppress-health-check", "all", "--warnings", "off"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stdout + done.stderr
