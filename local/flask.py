"""`python -m local.flask COMMAND...`, what `make flask` calls: `flask` for what `make run` runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from local.env_file import EnvFileError
from local.key import NotRunning, service_environment
from local.run import ROOT, environment


def main(folder: Path, file: Path, arguments: list[str]) -> str:
    """Become the flask command with these arguments; returns only why that is not possible."""
    try:
        env = service_environment(folder, environment(file))
    except (NotRunning, EnvFileError) as error:
        return f"make flask: {error}"
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-m", "flask", *arguments], env)


if __name__ == "__main__":
    sys.exit(main(ROOT / ".data", ROOT / ".env", sys.argv[1:]))
