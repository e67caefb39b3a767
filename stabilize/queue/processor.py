"""The processor, where many programs import it from."""

from stabilize.processor import QueueProcessor, QueueProcessorConfig

__all__ = ["QueueProcessor", "QueueProcessorConfig"]
