"""Builders of stages."""

from stabilize.stages.builder import (
    StageDefinitionBuilder,
    StageDefinitionBuilderFactory,
    get_builder,
    get_default_factory,
    register_builder,
)
from stabilize.stages.instances import MultiInstanceBuilder
from stabilize.stages.loops import LoopBuilder

__all__ = [
    "LoopBuilder",
    "MultiInstanceBuilder",
    "StageDefinitionBuilder",
    "StageDefinitionBuilderFactory",
    "get_builder",
    "get_default_factory",
    "register_builder",
]
