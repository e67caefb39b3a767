"""Webhooks: events sent to a URL, signed as Standard Webhooks 1.0 has it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import os
import socket
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from stabilize.clock import now_ms, utc_now
from stabilize.errors import ConfigurationError, StabilizeError
from stabilize.events.base import Event
from stabilize.outbound import http_connection
from stabilize.types import encode

SCHEDULE_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long after a failed attempt the next one comes: ten attempts in all."""
GONE = 410
_THROTTLED = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """What became of one attempt; `status` is None when there was no answer."""

    delivered: bool
    status: int | None
    duration_ms: int
    error: str | None = None
    retry_after: float | None = None
    gone: bool = False


def secret_bytes(secret: str) -> bytes:
    """The key of a secret: `whsec_` and base64, or `env:NAME` for one in the environment."""
    if secret.startswith("env:"):
        value = os.environ.get(secret[4:])
        if not value:
            raise ConfigurationError(
                f"the webhook secret is to be in the environment variable {secret[4:]!r}, which is "
                "not set"
            )
        return secret_bytes(value)
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ConfigurationError(
            "a webhook secret is `whsec_` followed by base64, or `env:` and a variable's name"
        ) from error
    if not 24 <= len(key) <= 64:
        raise ConfigurationError(f"a webhook secret has 24 to 64 bytes, this one {len(key)}")
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a body: `v1,` and base64 of HMAC-SHA256 over id, time and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def body_of(event: Event) -> bytes:
    """What is sent for an event: `type`, `timestamp`, `data` (the event's dict)."""
    whole = event.to_dict()
    return encode(
        {"type": whole["event_type"], "timestamp": whole["timestamp"], "data": whole}
    ).encode()


class WebhookSender:
    """Sends events: one POST each, no redirects, an answer within `timeout` seconds.

    Private and loopback addresses are refused unless `allow_private`.
    """

    def __init__(self, timeout: float = 15.0, allow_private: bool = False) -> None:
        self.timeout = timeout
        self.allow_private = allow_private

    def send(self, url: str, event: Event, secret: str | None) -> SendResult:
        """Send one event; what goes wrong is told by the result."""
        started = time.monotonic()
        try:
            status, retry_after = self._post(url, event, secret)
        except (OSError, http.client.HTTPException, StabilizeError) as error:
            return SendResult(
                delivered=False,
                status=None,
                duration_ms=_since(started),
                error=f"{type(error).__name__}: {error}",
            )
        delivered = 200 <= status < 300
        return SendResult(
            delivered=delivered,
            status=status,
            duration_ms=_since(started),
            error=None if delivered else f"the endpoint answered {status}",
            retry_after=retry_after if status in _THROTTLED else None,
            gone=status == GONE,
        )

    def _post(self, url: str, event: Event, secret: str | None) -> tuple[int, float | None]:
        body = body_of(event)
        timestamp = now_ms() // 1000
        message_id = event.event_id.replace(".", "_")  # the dot separates what is signed
        headers = {
            "content-type": "application/json",
            "user-agent": "stabilize",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        if secret is not None:
            headers["webhook-signature"] = sign(secret, message_id, timestamp, body)
        connection, target = http_connection(url, self.timeout, allow_private=self.allow_private)
        # the socket's own timeout is for each read; an endpoint that drips would outlast it
        watchdog = threading.Timer(self.timeout, _cut, [connection])
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            return response.status, _retry_after(response.getheader("retry-after"))
        finally:
            watchdog.cancel()
            connection.close()


def _cut(connection: http.client.HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - utc_now()).total_seconds())
    except (TypeError, ValueError):
        return None
