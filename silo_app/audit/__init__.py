"""Who asked what, and what was answered: an append-only log inside the silo."""
