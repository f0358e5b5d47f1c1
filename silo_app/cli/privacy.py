"""`silo privacy`: what trainings have spent of the patients' privacy, and what is left."""

from itertools import groupby
from typing import Any

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import load


def privacy(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Show what trainings have spent of this silo's patients' privacy, job by job, and what is left.

    Counted for whole patients, over all jobs together: less than the jobs' own sums, as privacy losses add up slower than
    epsilons. Above an epsilon of 100 nothing is promised any more: it is infinite, null in JSON. Jobs without `privacy` in
    their plan promise nothing and are not counted: their encoders may tell about any patient.

    Examples:
        silo privacy --silo consortium/hospital-a

        silo privacy --silo consortium/hospital-a --format json
    """
    from silo_app.privacy.ledger import PrivacyLedger

    home = load(silo)
    budget = home.config.training.privacy
    charges, jobs, spent = [], [], 0.0
    if home.privacy.exists():
        with PrivacyLedger(home.privacy) as ledger:
            charges, spent = ledger.charges(), ledger.spent(budget.delta)
            for job, group in groupby(sorted(charges, key=lambda one: one.job), key=lambda one: one.job):
                rounds = list(group)
                jobs.append(
                    {
                        "job": job,
                        "first": rounds[0].at,
                        "last": rounds[-1].at,
                        "rounds": len(rounds),
                        "steps": sum(one.spent.steps for one in rounds),
                        "noise": rounds[-1].spent.noise,
                        "patients": rounds[-1].patients,
                        "epsilon": ledger.spent(budget.delta, [job]),
                    }
                )
    left = None if budget.epsilon_total is None else max(budget.epsilon_total - spent, 0.0)
    data = {
        "silo": home.config.name,
        "policy": budget.model_dump(),
        "spent": spent,
        "left": left,
        "jobs": sorted(jobs, key=lambda one: str(one["first"])),
    }
    emit(data, output, _print)


_BAR = 40


def _print(data: dict[str, Any]) -> None:
    screen, policy, spent = data_screen(), data["policy"], data["spent"]
    limit = policy["epsilon_total"]
    allowed = f"of {limit:g} allowed" if limit is not None else "of an unlimited budget"
    screen.print(
        f"{data['silo']}: epsilon {spent:.2f} {allowed}, at delta {policy['delta']:g}, for whole patients", highlight=False
    )
    if limit is not None:
        used = min(_BAR, round(_BAR * min(spent / limit, 1.0)))
        screen.print("█" * used + "░" * (_BAR - used), highlight=False)
    if policy["required"]:
        screen.print("jobs without differential privacy are refused", highlight=False)
    if not data["jobs"]:
        screen.print("no private training yet", highlight=False)
        return
    table = WholeTable("job", "last", "rounds", "steps", "noise", "patients", "epsilon", copied=("job",))
    for column in table.columns[2:]:
        column.justify = "right"
    for one in data["jobs"]:
        numbers = (str(one["rounds"]), str(one["steps"]), f"{one['noise']:.3g}", str(one["patients"]))
        table.add_row(one["job"], one["last"], *numbers, f"{one['epsilon']:.2f}")
    screen.print(table)
