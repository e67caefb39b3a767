"""Processes that die on purpose, at every place where dying could tear something."""
