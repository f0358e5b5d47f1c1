"""What a silo spends of its patients' privacy, and release rules for aggregates."""
