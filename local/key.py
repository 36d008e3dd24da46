"""`python -m local.key NAME`, what `make key` calls: another API key for what `make run` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from redis import RedisError

from gateway.account.api_keys import KeyStore
from gateway.queue import clients, keys
from gateway.settings import ConfigurationError, Settings
from local.env_file import EnvFileError
from local.redis_server import running_url
from local.run import ROOT, environment, redis_url, with_defaults


class NotRunning(Exception):
    """Raised when there is no Redis to keep a key in; the message says what to do."""


def service_environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the service that runs with this data folder; raises NotRunning."""
    url = redis_url(environ) or running_url(folder)
    if not url or not folder.is_dir():
        raise NotRunning(
            f"no service runs with the data in {folder}. Start it with make run, and use a second "
            "terminal for this command"
        )
    return {**with_defaults(folder, environ), "REDIS_URL": url}


def create(name: str, folder: Path, environ: Mapping[str, str]) -> str:
    """A new key for the service that runs with this data folder and environment.

    Raises NotRunning, ConfigurationError, and RedisError where REDIS_URL does not answer.
    """
    settings = Settings.from_env(service_environment(folder, environ))
    keys.use_prefix(settings.redis_prefix)
    with clients.commands(settings, 1) as client:
        return KeyStore(client, settings.key_pepper).create(name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.key", description=__doc__)
    parser.add_argument("name", help="what `flask keys list` calls the key")
    parser.add_argument("--data", type=Path, default=ROOT / ".data", help="folder for all state")
    parser.add_argument("--env", type=Path, default=ROOT / ".env", help="file of settings")
    arguments = parser.parse_args()
    if not arguments.name.strip():
        return _fail("a key needs a name: make key NAME=me")
    try:
        key = create(arguments.name, arguments.data, environment(arguments.env))
    except (NotRunning, EnvFileError, ConfigurationError) as error:
        return _fail(str(error))
    except RedisError as error:
        return _fail(f"Redis does not answer: {error}")
    sys.stdout.write(f"Keep it safe: it cannot be shown again.\n{key}\n")
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"make key: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
