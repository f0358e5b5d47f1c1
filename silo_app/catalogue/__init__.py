"""What a silo holds: patients, studies, views, findings, refusals, in SQLite."""
