"""What the engine does, on every database."""
