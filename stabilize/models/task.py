"""One task of one stage run."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Enum, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from stabilize.clock import new_id
from stabilize.models.base import PREFIX, TABLE_OPTIONS, Base
from stabilize.status import WorkflowStatus
from stabilize.types import Identifier, Json

if TYPE_CHECKING:
    from stabilize.models.stage import StageExecution

STATUS = Enum(WorkflowStatus, native_enum=False, length=20)


class TaskExecution(Base, kw_only=True, eq=False):
    """The atomic unit of work within a stage; the tasks of a stage run one after another.

    `implementing_class` is the name the task is registered under. Times are milliseconds since the
    epoch. `retries` counts the executions that ended in a transient error.
    """

    __tablename__ = PREFIX + "tasks"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True, default_factory=new_id)
    workflow_id: Mapped[str] = mapped_column(Identifier(), default="")
    stage_id: Mapped[str] = mapped_column(
        ForeignKey(PREFIX + "stages.id", ondelete="CASCADE"), default=""
    )
    position: Mapped[int] = mapped_column(Integer, default=0)
    name: Mapped[str] = mapped_column(String(255), default="")
    implementing_class: Mapped[str] = mapped_column(String(255), default="")
    status: Mapped[WorkflowStatus] = mapped_column(STATUS, default=WorkflowStatus.NOT_STARTED)
    start_time: Mapped[int | None] = mapped_column(BigInteger, default=None)
    end_time: Mapped[int | None] = mapped_column(BigInteger, default=None)
    stage_start: Mapped[bool] = mapped_column(Boolean, default=False)
    stage_end: Mapped[bool] = mapped_column(Boolean, default=False)
    loop_start: Mapped[bool] = mapped_column(Boolean, default=False)
    loop_end: Mapped[bool] = mapped_column(Boolean, default=False)
    task_exception_details: Mapped[dict[str, Any]] = mapped_column(Json, default_factory=dict)
    retries: Mapped[int] = mapped_column(Integer, default=0)
    version: Mapped[int] = mapped_column(Integer, default=0)
    event_version: Mapped[int] = mapped_column(Integer, default=0)

    stage: Mapped[StageExecution] = relationship(
        back_populates="tasks", lazy="raise_on_sql", default=None, repr=False
    )

    __table_args__ = (
        Index(None, "stage_id", "position"),
        Index(None, "workflow_id"),
        TABLE_OPTIONS,
    )

    @classmethod
    def create(
        cls,
        name: str,
        implementing_class: str,
        stage_start: bool = False,
        stage_end: bool = False,
    ) -> TaskExecution:
        """Make a task that runs what is registered as `implementing_class`."""
        return cls(
            name=name,
            implementing_class=implementing_class,
            stage_start=stage_start,
            stage_end=stage_end,
        )

    is_stage_start = property(attrgetter("stage_start"))
    is_stage_end = property(attrgetter("stage_end"))
    is_loop_start = property(attrgetter("loop_start"))
    is_loop_end = property(attrgetter("loop_end"))

    @property
    def phase_version(self) -> tuple[str, int]:
        return (self.status.name, self.version)

    def has_stage(self) -> bool:
        return self.__dict__.get("stage") is not None

    def set_exception_details(self, details: dict[str, Any]) -> None:
        self.task_exception_details = details
