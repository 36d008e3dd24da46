"""The console's blueprint, with all of its pages."""

from api.console import playground, sign_in
from api.console.page import console

__all__ = ["console", "playground", "sign_in"]
