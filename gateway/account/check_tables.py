"""`python -m gateway.account.check_tables`: whether the database has the tables of this release.

gunicorn runs it before it starts, so that web processes need not import SQLAlchemy (16 MB) until
somebody asks for a report.
"""

from __future__ import annotations

import sys

from gateway.account.ledger import check_tables, open_ledger
from gateway.logs import configure
from gateway.queue import clients
from gateway.settings import ConfigurationError, Settings


def main() -> int:
    """Exit code: 0 if it has, or does not answer; 2 otherwise, with the reason on stderr."""
    try:
        settings = Settings.from_env()
        configure(settings)
        check_tables(open_ledger(settings, clients.commands(settings, 1)))
    except ConfigurationError as error:
        sys.stderr.write(f"configuration: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
