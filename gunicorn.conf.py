"""How gunicorn runs the web process: limits, timeouts, and a drain that ends calls in time."""

import os
import subprocess
import sys
import time

import gevent
from gunicorn.arbiter import Arbiter

from gateway import descriptors
from gateway.catalogue.catalogue import Catalogue
from gateway.settings import ConfigurationError, Settings

try:
    settings = Settings.from_env()
    # Here too: gunicorn would start a worker that finds it wrong again and again.
    Catalogue.load(settings)
except ConfigurationError as error:
    sys.exit(f"configuration: {error}")

descriptors.raise_limit()  # the web processes inherit it

# gunicorn takes `bind` and `workers` from PORT and WEB_CONCURRENCY.
worker_class = "api.http.gunicorn_worker.Worker"
# More than KEPT_CONNECTIONS and WEB_MAX_IN_FLIGHT together: a full app still answers /health.
worker_connections = min(4_000, descriptors.spare(settings.redis_connections))
backlog = 512
timeout = 30  # seconds that the event loop may be blocked; not a limit of a request
keepalive = 100  # Heroku's router keeps idle connections for 90 s; heads have a limit of their own
limit_request_fields = 64
# gunicorn takes SCRIPT_NAME from a client that it takes for a proxy: the address that the app sees
# would not be the one that a proxy has checked.
forwarder_headers = ""
# The scheme only decides whether cookies are secure and how examples begin. To ask who may set it
# took 2 % of a request.
forwarded_allow_ips = "*"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
control_socket_disable = True
if os.path.isdir("/dev/shm"):
    worker_tmp_dir = "/dev/shm"  # gunicorn needs a file, and /tmp may be read-only
accesslog = None
errorlog = "-"
logger_class = "api.http.gunicorn_worker.Log"
loglevel = settings.log_level.lower()
if settings.log_format == "json":
    # gunicorn's own lines too.
    logconfig_dict = {
        "root": {"handlers": []},
        "loggers": {
            "gunicorn.error": {
                "level": settings.log_level,
                "handlers": ["error_console"],
                "propagate": False,
            }
        },
        "formatters": {"generic": {"()": "gateway.logs.JsonFormatter"}},
    }

# Open connections above which each is closed after its response.
KEPT_CONNECTIONS = worker_connections * 3 // 8
LISTENER_SECONDS = 1.2  # gunicorn closes its listener within 1 s of SIGTERM
GRACE_SECONDS = 1.0  # for the last events, after the workers have ended their calls
LAST_SECONDS = 0.5  # for ended calls to reach their clients

graceful_timeout = int(settings.drain_seconds + 3)  # after it the arbiter kills


REFUSED = {
    "max_requests": "a process that is replaced refuses calls until it has ended those that run",
    "preload_app": "all web processes would have one identity and share their responses",
}


def on_starting(server):
    """Refuse settings of gunicorn that cannot work here, by name."""
    for name, reason in REFUSED.items():
        if getattr(server.cfg, name):
            sys.exit(f"configuration: gunicorn's {name} is not supported: {reason}")
    # In a process of its own: the arbiter is not patched by gevent, and the web processes need no
    # SQLAlchemy before the first report.
    if settings.database_url:
        check = [sys.executable, "-m", "gateway.account.check_tables"]
        if code := subprocess.run(check).returncode:
            sys.exit(code)


def post_worker_init(worker):
    """Start the broker, and a greenlet that waits for the end and drains."""
    # Not at the top: the arbiter reads this file before gevent has patched the standard library.
    from api.services import services

    worker.requests_running = 0
    broker = services(worker.wsgi).broker
    if not _take_names(broker.redis):
        gevent.spawn(_take_names_later, broker.redis)
    broker.start()
    services(worker.wsgi).reporter.start()
    runner = _start_batches(worker.wsgi)
    gevent.spawn(_lead_drain, worker, broker, runner)


def _start_batches(app):
    """The runner of batches of this process; None if no storage is configured."""
    from api.batches.runner import BatchRunner
    from api.services import services
    from app import PREFIX

    if services(app).storage is None:
        return None
    runner = BatchRunner(app, PREFIX)
    runner.start()
    return runner


def worker_exit(server, worker):
    """Send the metrics and the traces of this process off and give up its lease, however it ends.

    gunicorn exits by itself, maybe before `_lead_drain`, at a moment without connections.
    """
    from api.services import services

    if hasattr(worker, "wsgi"):
        installed = services(worker.wsgi)
        installed.reporter.close()
        if installed.tracing is not None:
            installed.tracing.close(LAST_SECONDS)
        installed.broker.close()


def pre_request(worker, req):
    worker.requests_running += 1
    # Idle connections are kept for `keepalive` and would keep new ones out: after a rush, no new
    # client got in for 40 s.
    if worker.connections > KEPT_CONNECTIONS:
        req.force_close()


def post_request(worker, req, environ, resp):
    worker.requests_running -= 1


def _take_names(redis):
    """Whether the names in Redis are this service's; False: Redis does not answer.

    Ends gunicorn if they are another's.
    """
    from redis.exceptions import RedisError

    from gateway.queue import owner

    try:
        owner.take(redis, settings.key_pepper, settings.key_pepper_old)
        return True
    except RedisError:
        return False
    except ConfigurationError as error:
        sys.stderr.write(f"configuration: {error}\n")
        sys.exit(Arbiter.WORKER_BOOT_ERROR)


def _take_names_later(redis):
    while not _take_names(redis):
        gevent.sleep(1)


def _lead_drain(worker, broker, batches):
    """Exit as soon as no request runs, and end running calls before gunicorn cuts them off.

    After SIGINT or SIGQUIT (`worker.hurried`) running calls are ended at once. Left alone, gunicorn
    waits for idle connections until its arbiter kills the process, and streams stop without an
    error event.
    """
    while worker.alive:
        gevent.sleep(0.1)
    stopped = time.monotonic()
    if batches is not None:
        batches.stop()
    broker.drain()
    _wait_idle(worker, stopped + settings.drain_seconds + GRACE_SECONDS, unless_hurried=True)
    broker.end_all()
    _wait_idle(worker, time.monotonic() + LAST_SECONDS)
    gevent.sleep(max(0, stopped + LISTENER_SECONDS - time.monotonic()))
    _wait_idle(worker, stopped + settings.drain_seconds + GRACE_SECONDS + LAST_SECONDS)
    sys.exit(0)  # in any greenlet, gevent raises it in the main one


def _wait_idle(worker, until, unless_hurried=False):
    while worker.requests_running and time.monotonic() < until:
        if unless_hurried and worker.hurried:
            return
        gevent.sleep(0.05)
