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
def store(backend: BackendUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlEventStore]:
    monkeypatch.setattr("stabilize.events.deliveries.chance", lambda: 0.0)
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


def sent(endpoint: Endpoint) -> list[int]:
    return [json.loads(body)["data"]["sequence"] for _, body in endpoint.requests]


def about(store: SqlEventStore, *workflow_ids: str) -> list[int]:
    events = [create_workflow_event(EventType.CUSTOM, id) for id in workflow_ids]
    return list(store.append_batch(events).sequences)


@pytest.mark.parametrize(
    ("order", "first", "later"),
    [
        (None, [0, 1, 2, 3], [0]),
        ("workflow", [0, 1], [0, 3, 2]),
        ("subscription", [0], [0, 1, 2, 3]),
    ],
)
def test_events_of_a_line_wait_for_each_other(
    store: SqlEventStore,
    manager: SubscriptionManager,
    endpoint: Endpoint,
    order: str | None,
    first: list[int],
    later: list[int],
) -> None:
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    endpoint.answers = [500]
    manager.create_subscription("x", None, webhook_url=endpoint.url, webhook_order=order)
    sequences = about(store, "v", "w", "v", "w")

    manager.process_once()
    assert sent(endpoint) == [sequences[n] for n in first]
    endpoint.requests.clear()
    clock.advance(SCHEDULE_SECONDS[0])
    for _ in range(4):
        manager.process_once()

    assert sorted(sent(endpoint)) == sorted(sequences[n] for n in later)
    if order is not None:
        for line in ([0, 2], [1, 3]) if order == "workflow" else ([0, 1, 2, 3],):
            of_it = [s for s in sent(endpoint) if sequences.index(s) in line]
            assert of_it == sorted(of_it)
    with pytest.raises(ValueError, match="webhook_order"):
        manager.create_subscription("x", None, webhook_order="entity")


def test_an_endpoint_that_is_down_is_tried_once_and_not_for_every_event(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    endpoint.answers = [503]
    manager.create_subscription("x", None, webhook_url=endpoint.url)
    sequences = about(store, *"abc")

    assert manager.process_once() == manager.process_once() == 0
    assert sent(endpoint) == sequences[:1]
    clock.advance(SCHEDULE_SECONDS[0])
    assert manager.process_once() == 3


def test_what_waits_for_a_disabled_subscription_holds_up_no_other(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    for id in ("off", "on"):
        manager.create_subscription(id, None, webhook_url=endpoint.url)
    endpoint.answers = [500] * 120
    about(store, *(str(n) for n in range(60)))
    for _ in range(3):
        manager.process_once()
    manager.disable_subscription("off")
    endpoint.requests.clear()
    endpoint.answers.clear()
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    clock.advance(SCHEDULE_SECONDS[0])

    assert manager.process_once() + manager.process_once() == 60
    manager.enable_subscription("off")
    assert manager.process_once() + manager.process_once() == 60


def test_an_endpoint_that_fails_all_the_time_is_given_up_and_can_be_taken_up_again(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    endpoint.answers = [500] * 10
    manager.create_subscription("x", None, webhook_url=endpoint.url)
    event = append(store)
    for seconds in (0, *SCHEDULE_SECONDS):
        clock.advance(seconds)
        manager.process_once()
    found = manager.get_subscription("x")
    assert found is not None
    assert not found.enabled

    endpoint.requests.clear()
    manager.enable_subscription("x")
    assert manager.process_once() == 0
    assert manager.replay_dead_letters("x") == 1
    assert manager.process_once() == 1
    assert sent(endpoint) == [event.sequence]
    assert manager.dead_letters("x") == []


def test_a_poison_event_is_set_aside_and_the_endpoint_stays(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    clock = store.database.clock
    assert isinstance(clock, ManualClock)
    endpoint.answers = [400, 200, 400]
    manager.create_subscription("x", None, webhook_url=endpoint.url, max_errors=2)
    poison, _ = about(store, "v", "w")
    for _ in range(2):
        manager.process_once()
        clock.advance(SCHEDULE_SECONDS[0])

    assert [(e.sequence, error) for e, error in manager.dead_letters("x")] == [
        (poison, "the endpoint answered 400")
    ]
    found = manager.get_subscription("x")
    assert found is not None
    assert found.enabled


def test_what_was_delivered_is_sent_once_more_when_asked_for(
    store: SqlEventStore, manager: SubscriptionManager, endpoint: Endpoint
) -> None:
    manager.create_subscription("x", None, webhook_url=endpoint.url)
    sequences = about(store, *"abcd")
    manager.process_once()
    endpoint.requests.clear()

    assert manager.replay_deliveries("x", after=sequences[0], upto=sequences[2]) == 2
    assert manager.process_once() == 2
    assert sent(endpoint) == sequences[1:3]


def test_two_secrets_make_two_signatures() -> None:
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()

    both = sign(f"{SECRET} {other}", "id", 1, b"{}")

    assert both == f"{sign(SECRET, 'id', 1, b'{}')} {sign(other, 'id', 1, b'{}')}"


def test_a_thin_event_has_ids_and_no_data(store: SqlEventStore, endpoint: Endpoint) -> None:
    sender = WebhookSender(timeout=5, allow_private=True, thin=True)
    event = append(store)

    assert sender.send(endpoint.url, event, None).delivered

    body = json.loads(endpoint.requests[0][1])
    assert body["data"]["event_id"] == event.event_id
    assert "data" not in body["data"]


def test_a_webhook_that_means_nothing_is_refused(
    store: SqlEventStore, manager: SubscriptionManager
) -> None:
    for url in ("ftp://example.com/", "example.com", "https:///x"):
        with pytest.raises(ForbiddenAddress):
            manager.create_subscription("x", None, webhook_url=url)
    with pytest.raises(ConfigurationError):
        manager.create_subscription("x", None, webhook_secret="whsec_???")
    result = WebhookSender().send("http://example.com/", append(store), None)
    assert "https" in str(result.error)
