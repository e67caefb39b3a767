"""Webhooks: events sent to a URL, signed as Standard Webhooks 1.0 has it."""

from __future__ import annotations

import base64
import binascii
import hmac
import http.client
import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from stabilize.clock import now_ms, utc_now
from stabilize.errors import ConfigurationError, StabilizeError
from stabilize.events.base import Event
from stabilize.outbound import ForbiddenAddress, request
from stabilize.types import encode

SCHEDULE_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long after a failed attempt the next one comes: ten attempts in all."""
GONE = 410
_THROTTLED = frozenset({429, 502, 503, 504})
_IDS = ("event_id", "sequence", "entity_type", "entity_id", "workflow_id", "version")


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """What became of one attempt; `status` is None when there was no answer.

    `lost`: there is nothing to be sent.
    """

    delivered: bool
    status: int | None = None
    duration_ms: int | None = None
    error: str | None = None
    retry_after: float | None = None
    lost: bool = False

    @property
    def gone(self) -> bool:
        """The endpoint wants nothing any more."""
        return self.status == GONE

    @property
    def unwell(self) -> bool:
        """The endpoint, not the event, is what is wrong."""
        unanswered = self.status is None and not self.delivered and not self.lost
        return unanswered or self.status in _THROTTLED


def secret_bytes(secret: str) -> bytes:
    """The key of a secret: `whsec_` and base64, or `env:NAME` for one in the environment."""
    if secret.startswith("env:"):
        value = os.environ.get(secret[4:])
        if not value:
            raise ConfigurationError(f"the variable {secret[4:]!r} of a webhook secret is not set")
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
    """The `webhook-signature` of a body: `v1,` and base64 of HMAC-SHA256 over id, time and body.

    Of several secrets with spaces between them, as many signatures: so a secret is replaced.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret_bytes(one), signed, "sha256") for one in secret.split())
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)


def body_of(event: Event, *, thin: bool = False) -> bytes:
    """What is sent for an event: `type`, `timestamp`, `data` (the event's dict, or ids alone)."""
    whole = event.to_dict()
    data = {key: whole[key] for key in _IDS} if thin else whole
    return encode(
        {"type": whole["event_type"], "timestamp": whole["timestamp"], "data": data}
    ).encode()


class WebhookSender:
    """Sends events: one POST each, no redirects, an answer within `timeout` seconds.

    Private addresses, and what is not https, are refused unless `allow_private`. `thin`: only
    the ids of what happened are sent.
    """

    def __init__(
        self, timeout: float = 15.0, allow_private: bool = False, *, thin: bool = False
    ) -> None:
        self.timeout = timeout
        self.allow_private = allow_private
        self.thin = thin

    def send(self, url: str, event: Event, secret: str | None) -> SendResult:
        """Send one event; what goes wrong is told by the result."""
        started = time.monotonic()
        status = retry_after = error = None
        try:
            status, retry_after = self._post(url, event, secret)
        except (OSError, http.client.HTTPException, StabilizeError, ValueError) as failed:
            error = f"{type(failed).__name__}: {failed}"
        delivered = status is not None and 200 <= status < 300
        return SendResult(
            delivered=delivered,
            status=status,
            duration_ms=int((time.monotonic() - started) * 1000),
            error=error or (None if delivered else f"the endpoint answered {status}"),
            retry_after=retry_after if status in _THROTTLED else None,
        )

    def _post(self, url: str, event: Event, secret: str | None) -> tuple[int, float | None]:
        if not self.allow_private and not url.lower().startswith("https:"):
            raise ForbiddenAddress(f"{url.partition(':')[0]}: events are sent by https")
        body = body_of(event, thin=self.thin)
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
        status, answered = request(
            "POST", url, headers, body, timeout=self.timeout, allow_private=self.allow_private
        )
        return status, _retry_after(answered.get("retry-after"))


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a header that has seconds or a date."""
    try:
        if value is None or value.isdigit():
            return None if value is None else float(value)
        return (parsedate_to_datetime(value) - utc_now()).total_seconds()
    except (TypeError, ValueError):
        return None
