"""The web process' entry: `gunicorn wsgi:app`, and the `flask` command."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from app import create_app  # noqa: E402
from gateway import memory  # noqa: E402
from gateway.logs import configure  # noqa: E402
from gateway.settings import ConfigurationError, Settings  # noqa: E402

try:
    settings = Settings.from_env()
    app = create_app(settings)
except ConfigurationError as error:
    sys.exit(f"configuration: {error}")
configure(settings)
memory.settle()
