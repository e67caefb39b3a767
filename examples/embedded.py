"""A workflow inside an application: its row and the workflow's start commit together.

The application has an engine, a session and a table of its own; the library joins them.
"""

from __future__ import annotations

from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stabilize import (
    Orchestrator,
    Queue,
    QueueProcessor,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    Workflow,
    WorkflowStore,
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    """What the application sells."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str] = mapped_column(String(100))


def pack(stage: StageExecution) -> TaskResult:
    return TaskResult.success(outputs={"parcel": f"one {stage.context['article']}, packed"})


def ship(stage: StageExecution) -> TaskResult:
    return TaskResult.success(outputs={"shipped": stage.context["parcel"]})


def fulfilment(order: Order) -> Workflow:
    """The workflow of an order; its id makes a second submission a no-op."""
    return Workflow.create(
        application="shop",
        name="fulfilment",
        id=f"order-{order.id}",
        stages=[
            StageExecution(
                ref_id="pack",
                context={"article": order.article},
                tasks=[TaskExecution.create("Pack", "pack")],
            ),
            StageExecution(
                ref_id="ship",
                requisite_stage_ref_ids={"pack"},
                tasks=[TaskExecution.create("Ship", "ship")],
            ),
        ],
    )


def main() -> None:
    engine = create_engine("sqlite:///shop.db")
    Base.metadata.create_all(engine)
    store = WorkflowStore(engine, create_tables=True)  # in production: the migrations
    queue = Queue(engine)
    orchestrator = Orchestrator(queue, store)
    registry = TaskRegistry()
    registry.register("pack", pack)
    registry.register("ship", ship)

    try:
        with Session(engine) as session, session.begin():
            order = Order(id=1, article="lamp")
            session.add(order)
            orchestrator.start(fulfilment(order), session=session)
            raise RuntimeError("the payment was refused")
    except RuntimeError as error:
        with Session(engine) as session:
            orders = session.scalars(select(Order)).all()
        print(f"{error}: {len(orders)} orders, workflow stored: {store.exists('order-1')}")

    with Session(engine) as session, session.begin():
        order = Order(id=2, article="chair")
        session.add(order)
        orchestrator.start(fulfilment(order), session=session)

    QueueProcessor(queue, store=store, task_registry=registry).process_all(timeout=10)
    result = store.retrieve("order-2")
    print(f"order-2 {result.status}: {result.get_context()['shipped']}")
    engine.dispose()


if __name__ == "__main__":
    main()
