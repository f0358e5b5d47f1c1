"""Search with a query that no other hospital can read: silos score an encrypted embedding and never learn it."""
