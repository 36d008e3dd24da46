"""Every error a caller can see.

* GatewayError                 500
  x InvalidRequest             400  the request says something it may not
  x AuthenticationFailed       401
  x ModelNotAllowed            403  the key may not use this model
  x NotFound                   404  no such address
    + ModelNotFound            404
  x PermissionDenied           403  an operator's route with another key, or the reverse
  x MethodNotAllowed           405
  x BodyTimeout                408
  x PayloadTooLarge            413
  x UnsupportedMedia           415
  x CallCancelled              499  the caller left; recorded, never sent
  x DeadlineExceeded           504
  x CancelledByOperator        503
  x WorkerLost                 502  the worker that ran the call died
  x Unavailable                503  the call never left this service
    + Overloaded               503
    + QueueUnavailable         503  Redis does not answer
    + KeyChanged               503  the key's record is not the one that was checked
    + NoWorkers                503
    + ShuttingDown             503
    + ProviderNotConfigured    503
    + JobLost                  503  Redis lost the call
    + RecordsBacklog           503  too many records of ended calls are not written yet
  x RateLimited                429  a limit of the key or of its owner
    + TokensLimited            429
    + QuotaExceeded            429  a budget of the key or of its owner
  x ReplyLost                  502  part of the answer was lost on its way through Redis
    + SlowReader               502  the caller reads slower than the answer arrives
    + WebLost                  502  the web process seemed dead, and comes back
    + WorkerStopped            502  the worker was shut down in the middle of the call
  x UpstreamError              502
    + UpstreamUnreachable      502  no connection could be made
    + UpstreamTLS              502
    + UpstreamTimeout          504
    + UpstreamAuth             502  the provider refuses the operator's key
    + UpstreamBadResponse      502
    + UpstreamTruncated        502  the stream ended before its end marker
    + UpstreamFailed           502  the provider answered 5xx
    + UpstreamOverloaded       503
    + UpstreamThrottled        429
    + UpstreamQuotaExceeded    429
    + UpstreamRejected         400  the provider says the call itself is wrong

Raise these anywhere. Only `api.http.errors` turns them into HTTP, and only `gateway.queue.protocol`
carries them across Redis (as `to_dict()`, never pickled).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


class StopCall(BaseException):
    """Thrown into a running call to end it with `error`.

    It is no Exception, so that no `except Exception` on its way swallows it. The transport sets
    `request_sent` to False where no part of the request had left.
    """

    def __init__(self, error: GatewayError) -> None:
        super().__init__()
        self.error = error
        self.request_sent = True


class GatewayError(Exception):
    """Base of every error a caller can see; raised itself for a fault of this service.

    `retry_after` is in seconds. `should_retry` becomes the `x-should-retry` header that OpenAI's
    clients obey: false once a provider call may have been made, true where none can have been,
    None where the status code says enough. `headers` are further headers of the response.
    `request_id`, where it is set, goes into the body of the response.

    `host`, `upstream_status` and `cause` say where and why a provider failed. They are for the
    worker's log and do not leave its process.
    """

    status = 500
    type: str = "server_error"
    code: str | None = None
    message: str = "The server had an error while processing your request."
    should_retry: bool | None = None
    retryable = False  # may this service itself try the call again?
    request_id = ""
    host = ""
    upstream_status = 0  # 0: there was no response
    cause = ""

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or type(self).message
        self.param = param
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        if should_retry is not None:
            self.should_retry = should_retry
        super().__init__(self.message)

    def envelope(self) -> dict[str, Any]:
        """OpenAI's error object, all four keys present, and the request's id if it is known."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.request_id:
            error["request_id"] = self.request_id
        return {"error": error}

    def to_dict(self) -> dict[str, Any]:
        """What crosses Redis; `from_dict` makes the same error of it again."""
        described = {
            "kind": type(self).__name__,
            "message": self.message,
            "param": self.param,
            "code": self.code,
            "status": self.status,
            "retry_after": self.retry_after,
            "should_retry": self.should_retry,
        }
        return {**described, "headers": self.headers} if self.headers else described

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> GatewayError:
        """The error that `to_dict` described; of an unknown kind or field the rest is kept.

        Raises TypeError or ValueError for what is no such description.
        """
        values = dict(data)
        kind = KINDS.get(values.pop("kind", ""), GatewayError)
        names = ("message", "param", "code", "status", "retry_after", "should_retry", "headers")
        return kind(**{name: values[name] for name in names if name in values})


class InvalidRequest(GatewayError):
    """Raised when the request itself is wrong; `param` names the path of the wrong value."""

    status = 400
    type = "invalid_request_error"
    message = "The request is invalid."


class AuthenticationFailed(InvalidRequest):
    """Raised when the key is missing, malformed, unknown, wrong or revoked."""

    status = 401
    code: str | None = "invalid_api_key"
    should_retry = False  # Claude Code would retry a wrong key for minutes
    message = "Incorrect API key provided."


class ModelNotAllowed(InvalidRequest):
    """Raised when the key may not use the model. OpenAI's status and code for a project."""

    status, code = 403, "model_not_found"
    message = "This API key does not have access to the model."


class NotFound(InvalidRequest):
    """Raised when nothing is served at this address."""

    status, code = 404, "unknown_url"
    message = "Unknown request URL."


class ModelNotFound(NotFound):
    """Raised when the catalogue, or the provider, has no such model."""

    code = "model_not_found"
    message = "The model does not exist or you do not have access to it."


class PermissionDenied(InvalidRequest):
    """Raised when the key is valid and not of the kind that this route needs."""

    status, code = 403, "insufficient_permissions"
    message = "This API key may not do that."


class MethodNotAllowed(InvalidRequest):
    """Raised when the address exists and does not take this HTTP method."""

    status, code = 405, "method_not_allowed"
    message = "Not allowed: this address does not take this HTTP method."


class BodyTimeout(InvalidRequest):
    """Raised when the request body does not arrive in time."""

    status, code = 408, "body_timeout"
    message = "The request body did not arrive in time."


class PayloadTooLarge(InvalidRequest):
    """Raised when the request body is over the limit."""

    status, code = 413, "request_too_large"
    message = "The request body is too large."


class UnsupportedMedia(InvalidRequest):
    """Raised when the body is not plain UTF-8 JSON."""

    status, code = 415, "unsupported_media_type"
    message = "Unsupported media type: send 'Content-Type: application/json'."


class CallCancelled(GatewayError):
    """Recorded as the outcome when the caller left; nobody is there to receive it."""

    status, code = 499, "client_closed_request"
    message = "The client closed the connection before the answer."
    should_retry = False


class CancelledByOperator(GatewayError):
    """Raised when an operator cancels the call; if it ran, the provider was called."""

    status, code = 503, "cancelled_by_operator"
    message = "An operator of this service cancelled this call."
    should_retry = False


class DeadlineExceeded(GatewayError):
    """Raised when the call's total deadline passes; the provider may have been called."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    message = "The call did not finish before its deadline."
    should_retry = False


class WorkerLost(GatewayError):
    """Raised when the worker that ran the call died; the provider may have been called."""

    status, code = 502, "worker_lost"
    message = "The worker that ran this call was lost. The provider may have been called."
    should_retry = False


class Unavailable(GatewayError):
    """Base of refusals made before the call left this service: safe to send again."""

    status = 503
    type = "service_unavailable_error"
    code = "service_unavailable"
    message = "The service cannot take this call now."
    should_retry = True


class Overloaded(Unavailable):
    """Raised when the queue, a web process or Redis' memory is full."""

    code = "server_is_overloaded"
    message = "The server is overloaded. Try again later."


class QueueUnavailable(Unavailable):
    """Raised when Redis does not answer."""

    code = "queue_unavailable"
    message = "The queue is not available. Try again in a moment."


class KeyChanged(Unavailable):
    """Raised when the record of the key has changed since it was checked: check it again."""

    code = "queue_unavailable"
    message = "The settings of this API key have just changed. Try again."


class NoWorkers(Unavailable):
    """Raised when a call has waited and no worker lives to take it."""

    code = "no_workers"
    message = "No worker is running. Try again later."


class ShuttingDown(Unavailable):
    """Raised when this process is being stopped and the call was not started."""

    code = "shutting_down"
    message = "This server is shutting down. Try again: another one will answer."


class ProviderNotConfigured(Unavailable):
    """Raised when the model's provider has no key; the message names the variable to set."""

    code = "provider_not_configured"
    message = "The provider of this model is not configured."
    should_retry = False


class JobLost(Unavailable):
    """Raised when Redis no longer knows the call. It may have been started, so: no retry."""

    code = "job_lost"
    message = "The queue lost this call. The provider may have been called."
    should_retry = False


class RecordsBacklog(Unavailable):
    """Raised when no more records of calls can be kept: a call without a record is not made."""

    code = "records_backlog"
    message = "Too many records of ended calls wait to be written. Try again in a moment."


class RateLimited(GatewayError):
    """Raised when a limit of the key or of its owner refuses the call. It was not made."""

    status = 429
    type = "requests"
    code: str | None = "rate_limit_exceeded"
    message = "Rate limit reached. Try again later."


class TokensLimited(RateLimited):
    """Raised when the tokens per minute of the key or of its owner are used up."""

    type = "tokens"  # OpenAI's word


class QuotaExceeded(RateLimited):
    """Raised when a budget of the key or of its owner is used up: a retry cannot help."""

    type = "insufficient_quota"
    code = "insufficient_quota"
    message = "The budget of this API key is used up."
    should_retry = False


class ReplyLost(GatewayError):
    """Raised when events of the answer are missing: better an error than a hole in the text."""

    status, code = 502, "reply_lost"
    message = "Part of the answer was lost inside the service."
    should_retry = False


class SlowReader(ReplyLost):
    """Raised when the caller reads so slowly that the answer no longer fits its buffer."""

    code = "slow_reader"
    message = "The answer was dropped because the client read it too slowly."


class WebLost(ReplyLost):
    """Recorded by a worker that ends the calls of a web process it takes for dead.

    A caller sees it if that web process comes back.
    """

    code = "web_lost"
    message = "The process that waited for this call stood still for so long that it was ended."


class WorkerStopped(ReplyLost):
    """Raised when the worker was shut down before the call could end."""

    code = "worker_stopped"
    message = "The worker was shut down before this call ended."


class UpstreamError(GatewayError):
    """Base of what goes wrong at or on the way to a provider."""

    status = 502
    code: str | None = "upstream_error"
    message = "The provider could not answer."
    should_retry: bool | None = False


class UpstreamUnreachable(UpstreamError):
    """Raised when no connection to the provider could be made: the call never left."""

    code = "upstream_connect"
    message = "The provider could not be reached."
    should_retry = True
    retryable = True


class UpstreamTLS(UpstreamError):
    """Raised when the provider's certificate cannot be trusted."""

    code = "upstream_tls"
    message = "The provider's TLS certificate could not be verified."


class UpstreamTimeout(UpstreamError):
    """Raised when the provider stays silent for too long."""

    status = 504
    type = "timeout_error"
    code = "upstream_timeout"
    message = "The provider did not answer in time."


class UpstreamAuth(UpstreamError):
    """Raised when the provider refuses the operator's key: never the caller's fault."""

    code = "upstream_auth"
    message = "The provider refused this service's credentials. Tell the operator."


class UpstreamBadResponse(UpstreamError):
    """Raised when the provider's answer is not of its documented form."""

    code = "upstream_bad_response"
    message = "The provider's answer could not be understood."


class UpstreamTruncated(UpstreamError):
    """Raised when a stream ends before its end marker: a cut answer is never a short one."""

    code = "upstream_truncated"
    message = "The provider's stream ended before the answer was complete."


class UpstreamFailed(UpstreamError):
    """Raised when the provider answers with a server error."""

    code = "upstream_failed"
    message = "The provider had an error while processing the request."
    retryable = True


class UpstreamOverloaded(UpstreamError):
    """Raised when the provider says that it is overloaded."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"
    message = "The provider is overloaded. Try again later."
    retryable = True


class UpstreamThrottled(UpstreamError):
    """Raised when the provider's rate limit refuses the call; it was not acted on."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    message = "The provider's rate limit was reached. Try again later."
    should_retry = None
    retryable = True


class UpstreamQuotaExceeded(UpstreamError):
    """Raised when the operator's credit at the provider is used up: trying again cannot help."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    message = "The provider's quota for this service is used up. Tell the operator."


class UpstreamRejected(UpstreamError):
    """Raised when the provider says that the call itself is wrong (its status is kept)."""

    status = 400
    type = "invalid_request_error"
    code = None
    message = "The provider rejected the request."
    should_retry = None


def code_of(error: GatewayError | None) -> str:
    """Return the code of an error, or that of its kind if it has none; "" for no error."""
    return (error.code or kind_code(type(error))) if error is not None else ""


def kind_code(kind: type[GatewayError]) -> str:
    """Return the code of a kind of errors, or its name in the form of one: upstream_rejected."""
    return kind.code or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def kinds(base: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """`base` and every class below it."""
    yield base
    for child in base.__subclasses__():
        yield from kinds(child)


KINDS: dict[str, type[GatewayError]] = {kind.__name__: kind for kind in kinds()}
