"""The store, where many programs import it from."""

from stabilize.errors import WorkflowNotFoundError
from stabilize.store import StoreTransaction, WorkflowCriteria, WorkflowStore

__all__ = ["StoreTransaction", "WorkflowCriteria", "WorkflowNotFoundError", "WorkflowStore"]
