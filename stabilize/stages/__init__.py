"""Builders of stages."""
