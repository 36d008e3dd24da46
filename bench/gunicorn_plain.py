"""gunicorn for the comparisons: the service's worker class and limits, without its hooks."""

worker_class = "gevent"
worker_connections = 2_000
backlog = 512
timeout = 30
keepalive = 100
control_socket_disable = True
accesslog = None
errorlog = "-"
