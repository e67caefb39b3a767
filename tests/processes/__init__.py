"""Several processes on one database: they share the work and survive each other's death."""
