"""A training job without NVFlare: what the server does between silos, in one process; and a trainer that is no child."""

from silo_app.aggregation.sums import RoundSum
from silo_app.encoder.ledger import STATISTICS, UPDATE, ClosedRound
from silo_app.encoder.participation import RoundOrder
from silo_app.encoder.worker import Worker


class InProcessTrainer:
    """What `Trainer` does, without a process of its own."""

    def __init__(self, home, folder):
        self.worker, self.closed = Worker(home.kit, folder), False

    def request(self, op, *, progress=lambda *_: None, **parameters):
        return getattr(self.worker, op)(progress, **parameters)

    def close(self):
        self.closed = True


class SimulatedJob:
    """The server of one job: `parts` maps silo to `Participation`; closed rounds go into `ledger`."""

    def __init__(self, parts, plan, ledger, job="job-1"):
        self.parts, self.plan, self.ledger, self.job = dict(parts), plan, ledger, job
        self.wrapped, self.bundles = {}, {}

    def join(self):
        announcements = {silo: part.join(self.plan) for silo, part in self.parts.items()}
        self.announcements, number = announcements, self.ledger.next_round
        for silo, part in self.parts.items():
            wrapped, bundle = part.agree(announcements, number)
            self.wrapped |= wrapped
            self.bundles.setdefault(number, {})[silo] = bundle
        return self

    def restore(self, jobs):
        asking = {silo: asked for silo, part in self.parts.items() if (asked := part.ask_entry(self.plan, jobs))}
        members = [silo for silo in self.parts if silo not in asking]
        for silo in members:
            self.parts[silo].restore(self.plan, jobs)
        for silo, admission in (self.parts[members[0]].admit(asking) if asking else {}).items():
            self.parts[silo].enter(admission)
        for part in self.parts.values():
            for closed in self.ledger.since(part.next_round):
                part.close_round(closed)
        return self.join()

    @property
    def last(self):
        return self.ledger.read(self.ledger.next_round - 1) if self.ledger.next_round else None

    def order(self, silo, content=UPDATE, participants=None):
        number = self.ledger.next_round
        bundles = self.bundles[number]
        return RoundOrder(
            number=number,
            content=content,
            training_round=self.ledger.sums() if content == UPDATE else None,
            participants={name: bundles[name] for name in participants or bundles},
            wrapped_key=self.wrapped.get(silo),
            last=self.last,
        )

    def round(self, content=UPDATE, *, participants=None, arrived=None, revealed=None):
        """Run a round: `participants` are asked, the updates of `arrived` come, `revealed` reveal."""
        number = self.ledger.next_round
        participants = sorted(participants or self.bundles[number])
        arrived = sorted(arrived or participants)
        total = RoundSum(self.job, number, min_silos=self.plan.min_silos)
        for silo in participants:
            if silo in arrived:
                total.add(self.parts[silo].round(self.order(silo, content, participants)), silo=silo)
        signatures = {silo: self.parts[silo].sign(number, arrived) for silo in arrived}
        reveals = {silo: self.parts[silo].reveal(number, signatures) for silo in revealed or arrived}
        for silo in revealed or arrived:
            self.bundles.setdefault(number + 1, {})[silo] = self.parts[silo].share(number + 1)
        closed = ClosedRound(
            number=number,
            job=self.job,
            content=content,
            message=total.result(),
            contributors=total.contributors,
            reveals=reveals,
            bundles={silo: self.bundles[number][silo] for silo in participants},
        )
        self.ledger.close(closed)
        return closed

    def statistics(self):
        self.round(STATISTICS)
        return self

    def void(self):
        self.ledger.close(ClosedRound(number=self.ledger.next_round, job=self.job))

    def catch_up(self, silo):
        """Send a silo all that it misses, and take its masks for the next round."""
        part = self.parts[silo]
        for closed in self.ledger.since(part.next_round):
            part.close_round(closed)
        number = self.ledger.next_round
        self.bundles.setdefault(number, {})[silo] = part.share(number)

    def finish(self):
        return {silo: part.finish(self.last) for silo, part in self.parts.items()}
