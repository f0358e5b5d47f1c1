"""The entrance to a training that is resumed: a silo that was not in it asks for its keys, a member gives them.

What is handed over, and why it is enough, is in `aggregation.entry`.
"""

from collections.abc import Collection, Mapping, Sequence

from silo_app.aggregation.entry import Entry, admitted
from silo_app.aggregation.progress import EarlierJob
from silo_app.audit.log import AuditLog
from silo_app.config import SiloHome
from silo_app.encoder import job_state
from silo_app.errors import KeyRefused, NotReady, ReleaseRefused
from silo_app.identity import Identity

__all__ = ["Entrance"]


class Entrance:
    """One silo at the entrance to the last of the jobs `lineage`, which resumes those before it, oldest first."""

    def __init__(self, home: SiloHome, identity: Identity, lineage: Sequence[str]) -> None:
        self._home = home
        self._identity = identity
        self._lineage = list(lineage)
        self._entry: Entry | None = None

    def request(self, named: Collection[str]) -> bytes | None:
        """Return the signed request to enter; None unless the job has named this silo, and it keeps nothing of the jobs."""
        kept = job_state.kept(self._home.root / "jobs")
        if self._identity.name not in named or set(self._lineage) & set(kept):
            return None
        self._entry = Entry(self._lineage[-1], self._identity)
        return self._entry.request()

    def admit(
        self, requests: Mapping[str, bytes], named: Collection[str], earlier: tuple[EarlierJob, ...]
    ) -> dict[str, bytes]:
        """Return, by silo, the keys of the jobs `earlier` for who asks, sealed and signed; the audit log has it first.

        Raises `ReleaseRefused` if this silo gives none, or the job has not `named` who asks; else as `entry.admitted`.
        """
        if not self._home.config.training.admit or not set(requests) <= set(named):
            raise ReleaseRefused(
                f"keys of a training are not given to {', '.join(sorted(requests))}",
                where="silo.yaml: training.admit",
                remedy="The silo's owner decides; and the job must name who enters: silo job submit --resume --admit.",
            )
        job, audit = self._lineage[-1], AuditLog(self._home.audit)
        try:
            audit.append("admission", {"job": job, "silos": sorted(requests), "jobs": [one.job for one in earlier]})
        finally:
            audit.close()
        return {
            silo: admitted(request, job=job, silo=silo, own=self._identity, earlier=earlier)
            for silo, request in requests.items()
        }

    def opened(self, admission: bytes) -> tuple[EarlierJob, ...]:
        """Return the jobs whose keys a member gave.

        Raises as `Entry.open`, `KeyRefused` if they are of other jobs, and `NotReady` if this silo has not asked.
        """
        if self._entry is None:
            raise NotReady("this silo has not asked to enter the job", remedy="It takes part again in the next job.")
        earlier = self._entry.open(admission)
        jobs = [one.job for one in earlier]  # one that closed no round left no key
        if jobs[:1] != self._lineage[:1] or jobs != [job for job in self._lineage if job in jobs]:
            raise KeyRefused(
                "the keys are of other jobs than those that this job goes on from",
                where=f"job {self._lineage[-1]}",
                remedy="Nothing was used; this silo takes part in the next job.",
            )
        return earlier
