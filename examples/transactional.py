"""A task that writes the application's tables in the transaction that records its outcome.

Its body may run again after a crash; its effect is there exactly once.
"""

from __future__ import annotations

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stabilize import (
    Orchestrator,
    Queue,
    QueueProcessor,
    StageExecution,
    TaskExecution,
    TaskRegistry,
    TaskResult,
    TransactionalTask,
    Workflow,
    WorkflowStore,
)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


class Transfer(TransactionalTask):
    """Move an amount from one account to another."""

    def execute(self, stage: StageExecution, session: Session) -> TaskResult:
        source = session.get_one(Account, stage.context["source"])
        target = session.get_one(Account, stage.context["target"])
        amount = stage.context["amount"]
        if source.balance < amount:
            return TaskResult.terminal(f"{source.name} has only {source.balance}")
        source.balance -= amount
        target.balance += amount
        return TaskResult.success(outputs={"left": source.balance})


def transfer(amount: int) -> Workflow:
    return Workflow.create(
        application="bank",
        name="transfer",
        stages=[
            StageExecution(
                ref_id="transfer",
                context={"source": "Ada", "target": "Alan", "amount": amount},
                tasks=[TaskExecution.create("Transfer", "transfer")],
            )
        ],
    )


def main() -> None:
    engine = create_engine("sqlite:///bank.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all([Account(name="Ada", balance=100), Account(name="Alan", balance=0)])

    store = WorkflowStore(engine, create_tables=True)  # in production: the migrations
    queue = Queue(engine)
    registry = TaskRegistry()
    registry.register("transfer", Transfer)
    orchestrator = Orchestrator(queue, store)
    workflows = [transfer(70), transfer(70)]  # the second is one too many
    for workflow in workflows:
        orchestrator.start(workflow)
        QueueProcessor(queue, store=store, task_registry=registry).process_all(timeout=10)
        print(store.retrieve(workflow.id).status)

    with Session(engine) as session:
        accounts = session.scalars(select(Account).order_by(Account.name)).all()
        print(", ".join(f"{account.name} has {account.balance}" for account in accounts))
    engine.dispose()


if __name__ == "__main__":
    main()
