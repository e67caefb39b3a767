"""Tasks, their results and their bodies, without a database."""
