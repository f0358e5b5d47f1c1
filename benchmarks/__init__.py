"""Every measured claim of the documentation, each a command: `python -m benchmarks.NAME [--quick] [--json FILE]`."""
