"""The web application, put together."""

from __future__ import annotations

from flask import Flask, request

from api import account_commands, commands, doctor, queue_commands
from api.batches.message_view import message_batches
from api.batches.view import batches
from api.chat.view import chat
from api.console.view import console
from api.embeddings.view import embeddings
from api.files.view import files
from api.http import errors, headers, measure, not_found, tracing
from api.http.application import Application
from api.http.health import health
from api.keys.view import keys
from api.messages.view import messages
from api.metrics.view import metrics
from api.models.view import models
from api.openapi import home
from api.openapi.docs import docs
from api.openapi.document import openapi
from api.queue.view import queue
from api.responses.view import responses
from api.services import Services
from api.usage.view import usage
from gateway.settings import Settings

PREFIX = "/inference/v1"


def create_app(settings: Settings, services: Services | None = None) -> Flask:
    """The Flask app for these settings. Connects to nothing until the first request.

    `services` replaces those that the settings describe. Raises ConfigurationError for a catalogue
    that cannot be used.
    """
    app = Application(__name__, static_folder=None)
    # An address with two slashes is a 404: a redirect would go where the Host header says.
    app.url_map.merge_slashes = False
    installed = services or Services.create(settings)
    installed.install(app)
    measure.register(app, installed.reporter)
    tracing.register(app, installed.tracing)
    errors.register(app)
    # The views have returned by then, and with them the parameters of an unstreamed call.
    app.teardown_request(lambda _: installed.bodies.drop(id(request.environ)))
    not_found.register(app, PREFIX)
    headers.register(app, settings.cors_allow_origins)
    for blueprint in (
        chat,
        messages,
        embeddings,
        models,
        responses,
        keys,
        usage,
        queue,
        files,
        batches,
        message_batches,
        health,
        openapi,
        docs,
    ):
        app.register_blueprint(blueprint, url_prefix=PREFIX)
    app.register_blueprint(metrics)  # at the root, where Prometheus looks
    app.register_blueprint(console)
    home.register(app, PREFIX)
    app.cli.add_command(commands.keys)
    app.cli.add_command(commands.owners)
    app.cli.add_command(commands.webhooks)
    app.cli.add_command(commands.check_config)
    app.cli.add_command(doctor.doctor)
    app.cli.add_command(account_commands.db)
    app.cli.add_command(account_commands.account)
    app.cli.add_command(queue_commands.queue)
    app.cli.add_command(queue_commands.workers)
    return app
