"""Close the jobs that a server left running when it ended: `python -m provisioning.stale_jobs KIT`, before its start.

NVFlare 2.9 does not resume jobs, and lists one whose server was killed as RUNNING for ever. No job can run before the
server does, so whatever is listed as running then has ended.
"""

import contextlib
import json
import sys
from pathlib import Path

from silo_app import durable

__all__ = ["close"]

_OPEN = {"RUNNING", "DISPATCHED"}
_CLOSED = "FINISHED:ABNORMAL"  # nvflare/apis/job_def.py, RunStatus


def close(kit: Path) -> list[str]:
    """Mark every job of a server's kit that is listed as running as ended; return their ids."""
    closed = []
    for file in sorted((kit / "store" / "jobs").glob("*/meta")):
        with contextlib.suppress(ValueError):
            meta = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(meta, dict) and meta.get("status") in _OPEN:
                durable.write_text(file, json.dumps(meta | {"status": _CLOSED}))
                closed.append(file.parent.name)
    return closed


def main() -> None:
    """Close the stale jobs of the kit that is the first argument, and say which."""
    for job in close(Path(sys.argv[1])):
        print(f"job {job} was running when the server ended: marked {_CLOSED}")  # noqa: T201  (goes to the server's log)


if __name__ == "__main__":
    main()
