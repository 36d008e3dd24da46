"""How gunicorn runs the web process: limits, timeouts, and a drain that the app leads."""

import sys
import time

import gevent

from gateway.catalogue.catalogue import Catalogue
from gateway.settings import ConfigurationError, Settings

try:
    settings = Settings.from_env()
    # Here too: gunicorn would start a worker that finds it wrong again and again.
    Catalogue.load(settings)
except ConfigurationError as error:
    sys.exit(f"configuration: {error}")

# `bind` and `workers` come from PORT and WEB_CONCURRENCY by themselves.
worker_class = "api.http.gunicorn_worker.Worker"
# Above KEPT_CONNECTIONS and WEB_MAX_IN_FLIGHT together: health is answered when the app is full.
worker_connections = 4_000
backlog = 512
timeout = 30  # of a blocked event loop, not of a request
keepalive = 100  # Heroku's router keeps idle connections for 90 s; also the time limit of a header
limit_request_fields = 64
control_socket_disable = True
accesslog = None
errorlog = "-"
logger_class = "api.http.gunicorn_worker.Log"
loglevel = settings.log_level.lower()

KEPT_CONNECTIONS = 1_500  # above it, a connection is closed after its answer
LISTENER_SECONDS = 1.2  # gunicorn closes its listener within 1 s of SIGTERM
GRACE_SECONDS = 1.0  # after the workers' own end of their calls, for their last events
LAST_SECONDS = 0.5  # for ended calls to reach their clients

graceful_timeout = int(settings.drain_seconds + 3)  # the arbiter's kill


def post_worker_init(worker):
    """Start the app's reader, lease and sweep, and watch for the end."""
    # Not at the top: the arbiter reads this file before gevent has patched the standard library.
    from api.services import services

    worker.requests_running = 0
    broker = services(worker.wsgi).broker
    broker.start()
    gevent.spawn(_lead_drain, worker, broker)


def pre_request(worker, req):
    worker.requests_running += 1
    if any(name == "CONTENT-LENGTH" and _too_long(value) for name, value in req.headers):
        req.force_close()  # 413 follows: the body will not be read
    # Idle ones are kept for `keepalive` and would keep new ones from being accepted: after a rush,
    # nobody new got in for 40 s.
    if worker.connections > KEPT_CONNECTIONS:
        req.force_close()


def post_request(worker, req, environ, resp):
    worker.requests_running -= 1


def _too_long(value):
    return not value.isdecimal() or int(value) > settings.max_body_bytes


def _lead_drain(worker, broker):
    """Leave as soon as nothing runs any more, and end what still does before gunicorn cuts it.

    gunicorn by itself waits for idle keep-alive connections until its arbiter kills the process,
    and never tells a stream that the end has come.
    """
    while worker.alive:
        gevent.sleep(0.1)
    asked = time.monotonic()
    broker.drain()
    _wait_idle(worker, asked + settings.drain_seconds + GRACE_SECONDS)
    broker.end_all()
    _wait_idle(worker, time.monotonic() + LAST_SECONDS)
    gevent.sleep(max(0, asked + LISTENER_SECONDS - time.monotonic()))
    _wait_idle(worker, asked + settings.drain_seconds + GRACE_SECONDS + LAST_SECONDS)
    broker.close()
    sys.exit(0)  # in any greenlet, gevent raises it in the main one


def _wait_idle(worker, until):
    while worker.requests_running and time.monotonic() < until:
        gevent.sleep(0.05)
