"""The project's gunicorn.conf.py, with a sampler in the web process."""

from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from tests.soak import sampler

_path = Path(__file__).parents[2] / "gunicorn.conf.py"
_project = ModuleType("project_conf")
SourceFileLoader("project_conf", str(_path)).exec_module(_project)
globals().update({name: value for name, value in vars(_project).items() if name[0] != "_"})


def post_worker_init(worker):
    _project.post_worker_init(worker)
    sampler.start()
