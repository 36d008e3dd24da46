"""`python -m workers`, with a sampler in it."""

from gevent import monkey

monkey.patch_all()

import runpy  # noqa: E402

from tests.soak import sampler  # noqa: E402

sampler.start()
runpy.run_module("workers", run_name="__main__", alter_sys=True)
