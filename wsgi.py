"""The web process' entry: `gunicorn wsgi:app`, and the `flask` command.

gunicorn's gevent worker patches the standard library before it loads this module. The `flask`
command is not patched: it has imported `threading` before, and Python 3.11 to 3.13 end with
tracebacks where that is patched late.
"""

import sys
from dataclasses import replace

from app import create_app
from gateway import descriptors, memory
from gateway.logs import configure
from gateway.queue import keys
from gateway.settings import ConfigurationError, Settings

try:
    settings = Settings.from_env()
    # With few file descriptors gunicorn takes fewer connections, and some must be left for /health.
    room = descriptors.spare(settings.redis_connections) * 3 // 8
    settings = replace(settings, max_in_flight=min(settings.max_in_flight, room))
    keys.use_prefix(settings.redis_prefix)
    app = create_app(settings)
    configure(settings)
except ConfigurationError as error:
    sys.exit(f"configuration: {error}")
memory.settle()
