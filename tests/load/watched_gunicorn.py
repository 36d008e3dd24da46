# gunicorn's configuration of the service, and a watch on the event loop: WATCH_FOLDER names where.

import os
from pathlib import Path

_path = Path(__file__).parents[2] / "gunicorn.conf.py"
exec(compile(_path.read_text(), _path, "exec"), globals())
_usual = globals()["post_worker_init"]


def post_worker_init(worker):
    from tests.load import watch

    _usual(worker)
    watch.start(os.environ["WATCH_FOLDER"], "web")
