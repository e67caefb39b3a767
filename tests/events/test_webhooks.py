"""Webhooks: really sent, signed, tried again, and never to where they must not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from sqlalchemy import select

from stabilize.clock import ManualClock
from stabilize.errors import ConfigurationError
from stabilize.events import (
    EventType,
    SqlEventStore,
    SubscriptionManager,
    WebhookSender,
    create_workflow_event,
)
from stabilize.events.webhooks import SCHEDULE_SECONDS, sign
from stabilize.models import EventDelivery
from stabilize.outbound import ForbiddenAddress, is_public, resolve
from tests.support.backends import BackendUnderTest

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


@dataclass
class Endpoint:
    """An HTTP server that answers as it is told and remembers what it was sent."""

    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(made.answers.pop(0) if made.answers else 204)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(backend: BackendUnderTest) -> Iterator[SqlEventStore]:
    store = SqlEventStore(backend.url)
    store.database.clock = ManualClock()
    yield store
    store.database.clock = None
    store.close()


@pytest.fixture
def manager(store: SqlEventStore) -> SubscriptionManager:
    return SubscriptionManager(store, sender=WebhookSender(timeout=5, allow_private=True))


def append(store: SqlEventStore) -> Any:
    return store.append(create_workflow_event(EventType.WORKFLOW_FAILED, "w", {"error": "no"}))


def deliveries(store: SqlEventStore) -> list[tuple[str, int, int | None]]:
    query = select(EventDelivery.status, EventDelivery.attempt, EventDelivery.http_status)
    with store.database.reading() as session:
        rows = session.execute(query.order_by(EventDelivery.sequence))
        return [(status, attempt, http) for status, attempt, http in rows]


def test_an_event_is_sent_signed_as_the_standard_says(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    manager.create_subscription("x", None, webhook_url=endpoint.url, webhook_secret=SECRET)
    event = append(store)

    assert manager.process_once() == 1

    ((headers, body),) = endpoint.requests
    assert headers["webhook-id"] == event.event_id
    signed = f"{event.event_id}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    sent = json.loads(body)
    assert (sent["type"], sent["data"]["data"]) == ("workflow.failed", {"error": "no"})
    assert deliveries(store) == [("DELIVERED", 1, 204)]
    assert manager.process_once() == 0


def test_the_example_of_the_standard_is_signed_alike() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_refused_event_is_tried_again_on_schedule_and_then_set_aside(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    endpoint.answers = [500] * 20
    manager.create_subscription("x", None, webhook_url=endpoint.url, webhook_secret=SECRET)
    append(store)
    manager.process_once()
    for seconds in SCHEDULE_SECONDS:
        clock.advance(seconds - 1)
        assert manager.process_once() == 0
        before = len(endpoint.requests)
        clock.advance(1)
        manager.process_once()
        assert len(endpoint.requests) == before + 1

    assert len(endpoint.requests) == 10
    assert len({headers["webhook-id"] for headers, _ in endpoint.requests}) == 1
    assert deliveries(store) == [("FAILED", 10, 500)]
    ((_, error),) = manager.dead_letters("x")
    assert error == "the endpoint answered 500"


def test_retry_after_is_honoured_a_redirect_is_no_success_and_gone_disables(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    endpoint.answers = [429, 302, 410]
    endpoint.headers = {"retry-after": "60", "location": "http://127.0.0.1:1/"}
    manager.create_subscription("x", None, webhook_url=endpoint.url)
    append(store)
    manager.process_once()
    clock.advance(59)
    manager.process_once()
    assert len(endpoint.requests) == 1
    clock.advance(1)
    manager.process_once()
    assert deliveries(store) == [("PENDING", 2, 302)]
    clock.advance(SCHEDULE_SECONDS[1])
    manager.process_once()

    found = manager.get_subscription("x")
    assert found is not None
    assert not found.enabled
    assert "webhook-signature" not in endpoint.requests[0][0]


def test_a_private_address_is_not_called(store: SqlEventStore, endpoint: Endpoint) -> None:
    manager = SubscriptionManager(store)
    manager.create_subscription("x", None, webhook_url=endpoint.url)
    append(store)

    manager.process_once()

    assert endpoint.requests == []
    assert deliveries(store) == [("PENDING", 1, None)]


def test_an_endpoint_that_never_answers_is_left_in_time(store: SqlEventStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        sender = WebhookSender(timeout=0.2, allow_private=True)

        result = sender.send(url, append(store), None)

    assert not result.delivered
    assert result.duration_ms < 3_000


def test_a_handler_and_a_webhook_both_get_the_event_once(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    heard: list[str] = []
    manager.create_subscription("x", lambda e: heard.append(e.event_id), webhook_url=endpoint.url)
    event = append(store)
    manager.process_once()
    manager.process_once()

    assert heard == [event.event_id]
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_addresses_that_are_public() -> None:
    assert all(is_public(a) for a in ("93.184.216.34", "2606:2800:220:1::1", "8.8.8.8"))
    with pytest.raises(ForbiddenAddress, match="not a public address"):
        resolve("localhost", 80)


def test_a_secret_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in ("whsec_???", "whsec_" + base64.b64encode(b"short").decode(), "env:NOT_SET"):
        with pytest.raises(ConfigurationError):
            sign(secret, "id", 1, b"")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    assert sign("env:HOOK_SECRET", "id", 1, b"") == sign(SECRET, "id", 1, b"")
