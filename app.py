"""The web application, put together."""

from __future__ import annotations

from flask import Flask

from api import commands, envelope, errors
from api.chat import chat
from api.docs import docs
from api.embeddings import embeddings
from api.exchange import Exchange
from api.health import health
from api.messages import messages
from api.models import models
from api.openapi import openapi
from api.responses import responses
from gateway import connections, lifecycle
from gateway.catalogue import Catalogue
from gateway.keys import KeyStore
from gateway.settings import Settings

PREFIX = "/inference/v1"


def create_app(settings: Settings) -> Flask:
    """The Flask app for these settings. Connects to nothing until the first request.

    Raises ConfigurationError for a catalogue that cannot be used.
    """
    app = Flask(__name__, static_folder=None)
    # Submitter, reader and lease have a connection each; what is left is for commands.
    redis = connections.commands(settings, settings.redis_connections - 3)
    app.extensions["settings"] = settings
    app.extensions["catalogue"] = Catalogue.load(settings)
    app.extensions["today"] = lifecycle.today
    app.extensions["keys"] = KeyStore(redis, settings.key_pepper)
    app.extensions["exchange"] = Exchange(settings, redis)
    errors.register(app)
    envelope.register(app, settings.cors_allow_origins)
    for blueprint in (chat, messages, embeddings, models, responses, health, openapi, docs):
        app.register_blueprint(blueprint, url_prefix=PREFIX)
    app.cli.add_command(commands.keys)
    app.cli.add_command(commands.check_config)
    return app
