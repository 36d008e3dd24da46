"""The worker as it is, and a watch on its event loop: WATCH_FOLDER names where."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402

from tests.load import watch  # noqa: E402
from workers.__main__ import main  # noqa: E402

if __name__ == "__main__":
    watch.start(os.environ["WATCH_FOLDER"], "worker")
    sys.exit(main())
