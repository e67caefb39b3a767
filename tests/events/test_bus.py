"""The bus of a process: who hears of what, in which order, and what errors do."""

from __future__ import annotations

import logging
import threading

import pytest

from stabilize.events import (
    EntityType,
    Event,
    EventBus,
    EventType,
    SubscriptionMode,
    configure_event_bus,
    get_event_bus,
)


def event(number: int = 1, **fields: object) -> Event:
    values: dict[str, object] = {
        "event_type": EventType.STAGE_STARTED,
        "entity_type": EntityType.STAGE,
        "workflow_id": "w",
        "sequence": number,
        **fields,
    }
    return Event(**values)  # type: ignore[arg-type]


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


def test_subscribers_hear_in_the_order_in_which_they_subscribed(bus: EventBus) -> None:
    heard: list[tuple[str, int]] = []
    bus.subscribe("b", lambda e: heard.append(("b", e.sequence)))
    bus.subscribe("a", lambda e: heard.append(("a", e.sequence)))

    bus.publish_batch([event(1), event(2)])

    assert heard == [("b", 1), ("a", 1), ("b", 2), ("a", 2)]


def test_filters_all_have_to_hold(bus: EventBus) -> None:
    heard: list[Event] = []
    bus.subscribe(
        "one",
        heard.append,
        event_types={EventType.STAGE_STARTED},
        entity_types={EntityType.STAGE},
        workflow_filter="w",
    )
    right = event()
    bus.publish(right)
    bus.publish(event(event_type=EventType.STAGE_FAILED))
    bus.publish(event(entity_type=EntityType.TASK))
    bus.publish(event(workflow_id="other"))
    bus.subscribe("none", heard.append, event_types=set())
    bus.publish(event(workflow_id="other"))

    assert heard == [right]


def test_the_same_id_replaces_and_unsubscribing_says_whether_it_was_there(bus: EventBus) -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus.subscribe("x", first.append)
    bus.subscribe("x", second.append)
    bus.publish(event())

    assert (len(first), len(second)) == (0, 1)
    assert [s.id for s in bus.get_subscriptions()] == ["x"]
    assert (bus.unsubscribe("x"), bus.unsubscribe("x")) == (True, False)
    assert not bus.has_listeners


def test_a_disabled_subscription_hears_nothing_until_it_is_enabled(bus: EventBus) -> None:
    heard: list[int] = []
    bus.subscribe("x", lambda e: heard.append(e.sequence))
    bus.disable_subscription("x")
    bus.disable_subscription("unknown")
    bus.publish(event(1))
    bus.enable_subscription("x")
    bus.publish(event(2))

    assert heard == [2]


def test_what_one_subscriber_raises_is_counted_and_reported_and_the_others_go_on(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    reported: list[tuple[str, int, str]] = []
    bus.on_error(lambda id, e, error: reported.append((id, e.sequence, str(error))))

    def fails(e: Event) -> None:
        raise ValueError("no")

    bus.subscribe("bad", fails)
    bus.subscribe("good", heard.append)
    with caplog.at_level(logging.CRITICAL):
        bus.publish(event(7))

    assert len(heard) == 1
    assert reported == [("bad", 7, "no")]
    stats = bus.stats
    assert (stats.events_published, stats.events_delivered, stats.errors) == (1, 2, 1)
    assert stats.subscriptions_active == 2


def test_an_error_handler_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no")

    bus = EventBus(error_handler=fails)
    bus.subscribe("bad", fails)
    with caplog.at_level(logging.CRITICAL):
        bus.publish(event())

    assert bus.stats.errors == 1


def test_asynchronous_subscribers_do_not_hold_the_publisher_and_keep_their_order(
    bus: EventBus,
) -> None:
    go_on = threading.Event()
    slow: list[int] = []
    quick: list[int] = []

    def wait(e: Event) -> None:
        assert go_on.wait(10)
        slow.append(e.sequence)

    bus.subscribe("slow", wait, mode=SubscriptionMode.ASYNC)
    bus.subscribe("quick", lambda e: quick.append(e.sequence), mode=SubscriptionMode.ASYNC)
    bus.publish_batch([event(n) for n in range(200)])

    assert slow == []
    go_on.set()
    assert bus.flush()
    assert slow == quick == list(range(200))


def test_after_shutdown_nobody_hears_anything(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    bus.subscribe("x", heard.append, mode=SubscriptionMode.ASYNC)
    bus.publish(event())
    bus.shutdown()
    bus.publish(event())

    assert len(heard) == 1
    assert "after the bus was shut down" in caplog.text


def test_configuring_the_bus_keeps_who_has_subscribed() -> None:
    heard: list[Event] = []
    get_event_bus().subscribe("x", heard.append)

    configured = configure_event_bus(max_workers=1)
    get_event_bus().publish(event())

    assert configured is get_event_bus()
    assert len(heard) == 1
