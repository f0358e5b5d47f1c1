"""The `silo` command: adapters between people and the domain; no rules live here."""
