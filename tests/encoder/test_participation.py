"""A silo's part in a job: rounds that are missed, voided, asked for twice, rejected, and resumed by a new process."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from silo_app import config
from silo_app.encoder import checkpoint, job_state
from silo_app.encoder.ledger import NUMBERS, ClosedRound, Ledger
from silo_app.encoder.participation import Participation
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.settings import AveragingPlan, PrivacyPlan
from silo_app.errors import (
    CheckpointInvalid,
    ConfigInvalid,
    KeyRefused,
    NotReady,
    PrivacyRefused,
    ReleaseRefused,
    RoundRefused,
    SumRejected,
    UpdateRefused,
)
from silo_app.privacy.accountant import epsilon_of
from silo_app.privacy.ledger import PrivacyLedger
from tests.encoder.simulated_job import InProcessTrainer, SimulatedJob

SILOS = ("alpha", "beta", "gamma")
PLAN = TrainingPlan.checked(
    {
        "rounds": 2,
        "encoder": {"backbone": "densenet-small", "input_size": 32, "embedding_dim": 16, "findings": ["Pneumonia"]},
        "training": {"steps": 2, "batch_size": 4, "precision": "float32"},
    }
)


def certify(kit, name, root):
    key = ec.generate_private_key(ec.SECP256R1())
    root_key, root_name = root
    now = datetime.now(UTC)
    for subject, public, file in ((root_name, root_key, "rootCA.pem"), (_name(name), key, "client.crt")):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(root_key, hashes.SHA256())
        )
        (kit / "startup").mkdir(exist_ok=True)
        (kit / "startup" / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (kit / "startup" / "client.key").write_bytes(secret)
    (kit / "startup" / "client.key").chmod(0o600)


def _name(common):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@pytest.fixture
def homes(fill_silo):
    root = ec.generate_private_key(ec.SECP256R1()), _name("root")
    made = {}
    for seed, name in enumerate(SILOS):
        made[name] = fill_silo(name, views=24, seed=seed)
        certify(made[name].kit, name, root)
    return made


@pytest.fixture
def begin(homes, tmp_path):
    """A function that begins a job, or resumes one."""

    def begin(job="job-1", plan=PLAN, resume=None, silos=SILOS, admit=()):
        parts = {}
        for name in silos:
            folder = homes[name].root / "work" / job
            folder.mkdir(parents=True)
            parts[name] = Participation(homes[name], job=job, folder=folder, trainer=InProcessTrainer(homes[name], folder))
        root = tmp_path / "server"
        if resume is None:
            settings = plan.model_dump(mode="json", exclude={"resume"})
            return SimulatedJob(parts, plan, Ledger.begin(root, job, settings), job).join().statistics()
        ledger = Ledger.resume(root, resume, job)
        plan = TrainingPlan.checked(ledger.plan | {"resume": resume, "admit": list(admit)})
        return SimulatedJob(parts, plan, ledger, job).restore(list(ledger.jobs[:-1]))

    return begin


def test_a_job_leaves_one_encoder_and_nothing_to_resume(begin, homes):
    job = begin()
    job.round()
    job.round()
    assert len(set(job.finish().values())) == 1
    assert all(job_state.kept(home.root / "jobs") == [] for home in homes.values())
    lines = [json.loads(line) for line in (homes["alpha"].root / "jobs/job-1/rounds.jsonl").read_text().splitlines()]
    sums = [line["sums"] for line in lines if "sums" in line]
    assert [one["samples"] for one in sums] == [sums[0]["samples"]] * 3
    assert sums[-1]["steps"] == 6
    assert [line["round"] for line in lines if "own" in line] == [0, 1]


TRACKED = PLAN.model_copy(update={"track": ("tensorboard",)})


@pytest.mark.parametrize(
    ("agreeing", "plan", "told"),
    [(SILOS, TRACKED, ["loss", "held_out_loss"]), (SILOS[:2], TRACKED, []), (SILOS, PLAN, [])],
    ids=["all agree", "one does not", "the job tracks nothing"],
)
def test_pooled_losses_are_shared_only_where_every_silo_in_the_sum_agrees(begin, homes, agreeing, plan, told):
    for name in agreeing:
        training = homes[name].config.training.model_copy(update={"share_metrics": True})
        homes[name] = homes[name].model_copy(update={"config": homes[name].config.model_copy(update={"training": training})})
    job = begin(plan=plan)
    job.round()
    job.parts["alpha"].close_round(job.last)
    shared = job.parts["alpha"].take_shared()
    assert [one.name for one in shared] == told
    assert [one.step for one in shared] == [1, 0][: len(told)]
    assert job.parts["alpha"].take_shared() == []


BEST = PLAN.model_copy(update={"select": "best", "patience": 1})


@pytest.fixture
def scripted(monkeypatch):
    """Let every silo find these losses on its held-out patients, one evaluation after the other."""

    def script(*losses):
        asked = dict.fromkeys(SILOS, 0)
        real = InProcessTrainer.request

        def request(trainer, op, **parameters):
            result = real(trainer, op, **parameters)
            if op != "evaluate":
                return result
            silo = trainer.worker._home.config.name
            asked[silo] += 1
            return result | {"loss": losses[min(asked[silo], len(losses)) - 1], "auc": {}}

        monkeypatch.setattr(InProcessTrainer, "request", request)

    return script


def test_the_best_weights_are_the_same_in_a_late_silo_and_in_a_resumed_job(begin, homes, scripted):
    scripted(0.5, 0.55, 0.52)
    job = begin(plan=BEST)
    start = job.parts["alpha"]._weights
    job.round()
    job.round(participants=["alpha", "beta"])
    job.catch_up("gamma")
    resumed = begin("job-2", resume="job-1")
    resumed.round("numbers")
    versions = resumed.finish()
    assert len(set(versions.values())) == 1
    kept = checkpoint.load(homes["gamma"].models, versions["gamma"])
    assert kept.card["round"] == 0
    assert np.array_equal(kept.vector, start)


def test_a_job_says_when_its_losses_no_longer_fall_and_keeps_the_best(begin, homes, scripted):
    scripted(0.7, 0.5, 0.55)
    job = begin(plan=BEST)
    job.round()  # tells how the start does
    job.round()  # tells how one sum does
    after_one = job.parts["alpha"]._weights
    assert not job.parts["alpha"].exhausted
    job.round("numbers")  # tells how two sums do
    versions = job.finish()
    kept = checkpoint.load(homes["beta"].models, versions["beta"])
    assert kept.card["round"] == 1
    assert np.array_equal(kept.vector, after_one)
    assert all(part.exhausted for part in job.parts.values())


def test_who_ends_early_trains_the_copy_whose_rounds_did_not_come(begin, homes, scripted):
    scripted(0.7, 0.5, 0.55)
    job = begin(plan=BEST.model_copy(update={"rounds": 12, "personal": "tuned"}))  # copies from the tenth round on
    job.round()
    job.round()
    job.round("numbers")
    versions = job.finish()
    assert all(part.exhausted for part in job.parts.values())
    copies = [checkpoint.load(homes[name].models, versions[name]) for name in SILOS]
    assert all(one.has_own_network for one in copies)
    assert len({one.personal.tobytes() for one in copies}) == 3
    assert not any(np.array_equal(one.personal, one.vector) for one in copies)


def test_a_copy_that_cannot_be_trained_costs_nothing_but_itself(begin, homes, scripted, monkeypatch):
    scripted(0.7, 0.5, 0.55)
    job = begin(plan=BEST.model_copy(update={"rounds": 12, "personal": "tuned"}))
    job.round()
    job.round()
    job.round("numbers")
    real = InProcessTrainer.request

    def request(trainer, op, **parameters):
        if op == "tune" and trainer.worker._home.config.name == "beta":
            raise UpdateRefused("the loss is not finite", where="beta", remedy="")
        return real(trainer, op, **parameters)

    monkeypatch.setattr(InProcessTrainer, "request", request)
    versions = job.finish()
    assert len(set(versions.values())) == 1
    kept = {name: checkpoint.load(homes[name].models, versions[name]) for name in SILOS}
    assert {name: one.has_own_network for name, one in kept.items()} == {"alpha": True, "beta": False, "gamma": True}
    assert checkpoint.current_version(homes["beta"].models) == versions["beta"]


def test_with_other_silos_every_round_there_is_no_best_one():
    with pytest.raises(ConfigInvalid, match="sample must be 1"):
        TrainingPlan.checked({"select": "best", "sample": 0.5})


def test_half_precision_is_refused_where_it_would_not_be_used():
    with pytest.raises(ConfigInvalid, match=r"training\.precision must be"):
        TrainingPlan.checked({"privacy": {"epsilon": 3}, "training": {"contrast": 0, "precision": "bfloat16"}})


def test_a_private_job_keeps_the_last_weights():
    with pytest.raises(ConfigInvalid, match="a private job sums no held-out loss"):
        TrainingPlan.checked({"select": "best", "privacy": {"epsilon": 8}, "training": {"contrast": 0}})
    with pytest.raises(ConfigInvalid, match='patience needs select "best"'):
        TrainingPlan.checked({"patience": 2})


def test_without_encryption_a_job_goes_the_same_way_and_can_be_resumed(begin):
    plan = PLAN.model_copy(update={"encryption": "none"})
    begin(plan=plan).round()
    resumed = begin("job-2", resume="job-1")
    resumed.round()
    assert len(set(resumed.finish().values())) == 1


def test_a_round_that_is_asked_for_again_gives_the_same_bytes(begin):
    job = begin()
    order = job.order("alpha")
    first = job.parts["alpha"].round(order)
    assert np.array_equal(job.parts["alpha"].round(order), first)


def test_a_silo_that_was_away_catches_up_and_ends_with_the_same_encoder(begin):
    job = begin()
    job.round(participants=["alpha", "beta"])
    with pytest.raises(RoundRefused, match="with weights of round"):
        job.parts["gamma"].round(dataclasses.replace(job.order("alpha"), wrapped_key=None, last=None))
    job.catch_up("gamma")  # its masks for the round come with it
    assert job.round().contributors == SILOS
    assert len(set(job.finish().values())) == 1


def test_a_silo_that_drops_out_after_the_order_costs_its_own_update(begin):
    job = begin()
    assert job.round(arrived=["alpha", "gamma"]).contributors == ("alpha", "gamma")
    job.catch_up("beta")
    job.round()
    assert len(set(job.finish().values())) == 1


def test_a_void_round_costs_time_only(begin, homes):
    harmed = begin()
    harmed.void()
    for silo in SILOS:
        harmed.catch_up(silo)
    harmed.round()
    harmed.round()
    voided = set(harmed.finish().values())
    unharmed = begin("job-2")
    unharmed.round()
    unharmed.round()
    assert set(unharmed.finish().values()) == voided


@pytest.mark.parametrize("opened", [False, True])
def test_a_resumed_job_ends_as_if_nothing_had_happened(begin, homes, opened):
    """The server is killed in the second round: some silos had opened the first sum, or none; one update was made."""
    killed = begin()
    killed.round()
    if opened:
        killed.parts["beta"].round(killed.order("beta"))
    resumed = begin("job-2", resume="job-1")
    assert resumed.parts["gamma"].next_round == 2
    resumed.round()
    ended = set(resumed.finish().values())
    unharmed = begin("job-3")
    unharmed.round()
    unharmed.round()
    assert set(unharmed.finish().values()) == ended
    card = checkpoint.read_card(homes["alpha"].models, ended.pop())
    assert card["round"] == 2


@pytest.mark.parametrize("method", ["momentum", "adam"])
def test_memory_of_earlier_rounds_is_the_same_in_a_late_silo_and_in_a_resumed_job(begin, homes, method):
    """Gamma is away for the first round; the server is killed in the second; the third rests on both rounds' memory."""
    plan = TrainingPlan.checked(PLAN.model_dump(mode="json") | {"rounds": 3, "averaging": {"method": method}})
    killed = begin(plan=plan)
    killed.round(participants=["alpha", "beta"])
    killed.catch_up("gamma")
    killed.round()
    resumed = begin("job-2", resume="job-1", plan=plan)
    resumed.round()
    (ended,) = set(resumed.finish().values())
    unharmed = begin("job-3", plan=plan)
    unharmed.round(participants=["alpha", "beta"])
    unharmed.catch_up("gamma")
    unharmed.round()
    unharmed.round()
    assert set(unharmed.finish().values()) == {ended}
    card = checkpoint.read_card(homes["alpha"].models, ended)
    assert card["averaging"]["method"] == method


def test_memory_of_earlier_rounds_changes_what_is_learned(begin):
    plan = PLAN.model_copy(update={"averaging": AveragingPlan(method="momentum", keep=0.9)})
    ends = []
    for name, chosen in (("job-1", PLAN), ("job-2", plan)):
        job = begin(name, plan=chosen)
        job.round()
        job.round()
        ends.append(job.finish()["alpha"])
    assert ends[0] != ends[1]


def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(begin):
    ends = []
    for name, seed in (("job-1", 1), ("job-2", 1), ("job-3", 2)):
        job = begin(name, plan=PLAN.model_copy(update={"seed": seed}))
        job.round()
        job.round()
        ends.append(job.finish()["alpha"])
    assert ends[0] == ends[1] != ends[2]


def test_a_silo_that_missed_the_last_round_before_the_kill_catches_up_under_the_old_key(begin):
    killed = begin()
    killed.round(arrived=["alpha", "beta"])
    resumed = begin("job-2", resume="job-1")
    assert {part.next_round for part in resumed.parts.values()} == {2}
    assert resumed.round().contributors == SILOS
    assert len(set(resumed.finish().values())) == 1


def test_a_silo_without_the_state_is_refused_and_the_others_go_on(begin, homes):
    begin().round()
    assert job_state.forget(homes["gamma"].root / "jobs", "job-1")
    with pytest.raises(NotReady, match="keeps nothing of the job"):
        begin("job-2", resume="job-1")
    resumed = begin("job-3", resume="job-1", silos=("alpha", "beta"))
    resumed.round()
    assert len(set(resumed.finish().values())) == 1


def test_a_damaged_state_is_refused(begin, homes):
    begin().round()
    file = homes["alpha"].root / "jobs" / "job-1" / "state"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointInvalid, match="is damaged"):
        begin("job-2", resume="job-1")


def test_a_resumed_job_has_the_settings_of_the_first(begin, homes):
    job = begin()
    with pytest.raises(NotReady, match="other settings"):
        job.parts["alpha"].restore(PLAN.model_copy(update={"rounds": 3, "resume": "job-1"}), ["job-1"])


def test_a_sum_that_fails_the_silos_own_test_is_rejected_and_the_silo_stands_aside(begin, homes, monkeypatch):
    job = begin()
    job.round()
    worker = job.parts["beta"]._trainer.worker
    real = worker.evaluate
    monkeypatch.setattr(worker, "evaluate", lambda *a, **k: real(*a, **k) | {"loss": float("inf")})
    with pytest.raises(SumRejected, match="not finite"):
        job.parts["beta"].round(job.order("beta"))
    closed = job.round(arrived=["alpha", "gamma"])
    assert closed.contributors == ("alpha", "gamma")
    monkeypatch.undo()
    job.catch_up("beta")  # the next sum passes: the silo keeps the encoder
    assert len(set(job.finish().values())) == 1


@pytest.fixture
def spoiled(monkeypatch):
    """A function that lets silos' own tests fail for some weights; returns how to let them pass again."""

    def spoil(job, silos, when=lambda _parameters: True):
        for silo in silos:
            worker = job.parts[silo]._trainer.worker
            real = worker.evaluate

            def evaluate(*given, real=real, **parameters):
                return real(*given, **parameters) | ({"loss": float("inf")} if when(parameters) else {})

            monkeypatch.setattr(worker, "evaluate", evaluate)
        return monkeypatch.undo

    return spoil


def reject(job, silos):
    for silo in silos:
        with pytest.raises(SumRejected, match="not finite"):
            job.parts[silo].round(job.order(silo))


def undo(job):
    """What the server does when too few silos are left to go on."""
    job.ledger.close(ClosedRound(number=job.ledger.next_round, job=job.job, undoes=job.ledger.can_be_undone))
    job.bundles[job.ledger.next_round] = {}
    for silo in job.parts:
        job.catch_up(silo)


def test_a_sum_that_too_many_silos_reject_is_undone_and_the_round_trained_again_from_other_batches(begin, spoiled):
    plan = PLAN.model_copy(update={"averaging": AveragingPlan(method="momentum"), "scaffold": True})
    job = begin(plan=plan)
    job.round()
    for part in job.parts.values():
        part.close_round(job.last)
    before = {silo: (part._weights, part._moments.first, part._own.control) for silo, part in job.parts.items()}
    progress = job.parts["beta"]._session._progress
    scales, norm = progress.scales, progress.norm
    first = job.round()
    heal = spoiled(job, ["alpha", "beta"])
    reject(job, ["alpha", "beta"])
    heal()
    undo(job)
    assert job.ledger.sums() == 1
    for silo, part in job.parts.items():  # gamma, who had not opened the sum yet, too
        assert all(np.array_equal(*pair) for pair in zip(before[silo], _standing(part), strict=True))
        assert (part._trained, part._session.rejected, part._own.next_control.size) == (1, "", 0)
    assert np.array_equal(job.parts["beta"]._session._progress.scales, scales)
    assert job.parts["beta"]._session._progress.norm == norm
    again = job.round()
    assert again.contributors == SILOS
    assert not np.array_equal(again.message, first.message)
    assert len(set(job.finish().values())) == 1


def _standing(part):
    return part._weights, part._moments.first, part._own.control


def test_an_undone_sum_is_undone_in_a_job_that_is_resumed_too(begin, spoiled):
    """Whether the silos had heard of it before the job ended, or one of them had not."""
    job = begin()
    job.round()
    job.round()
    weights = job.parts["alpha"]._weights
    spoiled(job, ["alpha", "beta"])
    reject(job, ["alpha", "beta"])
    job.ledger.close(ClosedRound(number=job.ledger.next_round, job=job.job, undoes=job.ledger.can_be_undone))
    job.parts["alpha"].close_round(job.last)
    for part in job.parts.values():
        part.close()
    resumed = begin(job="job-2", resume="job-1")
    assert all(np.array_equal(part._weights, weights) for part in resumed.parts.values())
    resumed.round()
    assert len(set(resumed.finish().values())) == 1


def test_who_spoiled_an_undone_sum_without_knowing_finds_it_out_when_the_round_is_run_again(begin, spoiled):
    job = begin()
    job.round()
    job.round()
    heal = spoiled(job, ["alpha", "beta"])
    reject(job, ["alpha", "beta"])
    heal()
    undo(job)
    spoiled(job, ["gamma"], lambda parameters: "trained" in parameters["weights"])
    with pytest.raises(UpdateRefused, match="of its own update, the loss on held-out patients is not finite"):
        job.parts["gamma"].round(job.order("gamma"))
    assert job.round(arrived=["alpha", "beta"]).contributors == ("alpha", "beta")
    assert len(set(job.finish().values())) == 1


def test_a_silo_that_lost_what_it_had_before_an_undone_sum_says_so_and_changes_nothing(begin, homes, spoiled):
    job = begin()
    job.round()
    job.round()
    spoiled(job, ["alpha", "beta"])
    reject(job, ["alpha", "beta"])
    (homes["beta"].root / "jobs" / "job-1" / "state-before").unlink()
    number = job.ledger.next_round
    job.ledger.close(ClosedRound(number=number, job=job.job, undoes=job.ledger.can_be_undone))
    with pytest.raises(NotReady, match=f"before exchange {number - 1}, which is undone"):
        job.parts["beta"].close_round(job.last)
    assert job.parts["beta"].next_round == number


def test_nothing_is_kept_of_jobs_that_nobody_resumed(tmp_path):
    jobs = tmp_path / "jobs"
    state = job_state.JobState(
        job="j", weights=np.zeros(3, np.float32), session=b"s", trained=1, plan={}, before={"loss": 1.0}
    )
    state.write(jobs)
    assert job_state.newest_of(jobs, ["x", "j"]).session == b"s"
    assert job_state.forget_all(jobs, older_than_days=1) == []
    assert job_state.forget_all(jobs) == ["j"]


PRIVATE = TrainingPlan.checked(
    PLAN.model_dump(mode="json")
    | {"training": {"steps": 2, "batch_size": 4, "contrast": 0}, "privacy": {"noise": 1.5, "delta": 1e-5}}
)


def limit(home, **privacy):
    """Give a silo a privacy budget, and a new process that has read it."""
    file = home.kit / "local" / "silo.yaml"
    file.write_text(json.dumps({"name": home.config.name, "training": {"privacy": privacy}}))
    return config.load(home.kit)


def charges(home):
    with PrivacyLedger(home.privacy) as ledger:
        return ledger.charges()


def test_a_private_job_is_paid_for_round_by_round_and_its_card_says_so(begin, homes):
    job = begin(plan=PRIVATE)
    job.round()
    assert [(one.job, one.round, one.spent.steps) for one in charges(homes["alpha"])] == [("job-1", 0, 2)]
    job.round()
    versions = job.finish()
    for name, home in homes.items():
        spent = [one.spent for one in charges(home)]
        card = checkpoint.load(home.models, versions[name]).card["privacy"]
        assert card["epsilon"] == pytest.approx(epsilon_of(spent, 1e-5), abs=1e-3)
        assert (card["unit"], card["noise"]) == ("patient", 1.5)


def test_nothing_that_patients_decide_travels_beside_a_private_update(begin, homes):
    job = begin(plan=PRIVATE)
    job.round()
    job.round()
    job.finish()
    lines = [json.loads(line) for line in (homes["alpha"].root / "jobs/job-1/rounds.jsonl").read_text().splitlines()]
    (first, last) = [line["sums"] for line in lines if "sums" in line and "steps" in line["sums"]]
    for one in (first, last):
        assert one["steps"] == 6
        assert not any(value for name, value in one.items() if "loss" in name or "held_out" in name)


def test_a_resumed_private_job_adds_to_what_was_paid(begin, homes):
    begin(plan=PRIVATE).round()
    resumed = begin("job-2", resume="job-1")
    resumed.round()
    versions = resumed.finish()
    paid = charges(homes["beta"])
    assert [(one.job, one.round) for one in paid] == [("job-1", 0), ("job-2", 1)]
    card = checkpoint.load(homes["beta"].models, versions["beta"]).card
    assert card["privacy"]["epsilon"] == pytest.approx(epsilon_of([one.spent for one in paid], 1e-5), abs=1e-3)


def test_a_silo_whose_budget_is_too_small_does_not_join(begin, homes):
    homes["beta"] = limit(homes["beta"], epsilon_total=0.5)
    with pytest.raises(PrivacyRefused, match="2 rounds would bring the epsilon spent"):
        begin(plan=PRIVATE)
    assert charges(homes["beta"]) == []


def test_a_silo_may_ask_for_privacy_in_every_job(begin, homes):
    homes["beta"] = limit(homes["beta"], required=True)
    with pytest.raises(PrivacyRefused, match="promises no differential privacy"):
        begin()


def test_an_epsilon_decides_the_noise_by_the_silos_size(begin, homes):
    plan = PRIVATE.model_copy(update={"privacy": PrivacyPlan(epsilon=4.0)})
    job = begin(plan=plan)
    job.round()
    job.round()
    for home in homes.values():
        assert 3.6 < epsilon_of([one.spent for one in charges(home)], 1e-5) <= 4.0


def test_losses_that_compare_patients_are_refused_in_a_private_job():
    with pytest.raises(ConfigInvalid, match=r"training\.contrast must be 0"):
        TrainingPlan.checked({"privacy": {"epsilon": 3}})
    with pytest.raises(ConfigInvalid, match="either epsilon or noise"):
        TrainingPlan.checked({"privacy": {}, "training": {"contrast": 0}})


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        PLAN.model_copy(update={"encryption": "none"}),
        PLAN.model_copy(update={"averaging": AveragingPlan(method="momentum"), "scaffold": True}),
        PLAN.model_copy(update={"select": "best"}),
    ],
    ids=["as it is", "plain", "with memory", "best"],
)
def test_a_silo_that_comes_later_enters_the_resumed_job_and_ends_with_everybodys_encoder(begin, homes, plan):
    job = begin(plan=plan, silos=SILOS[:2])
    job.round()
    late = begin("job-2", resume="job-1", admit=["gamma"]).statistics()
    assert late.parts["gamma"].next_round == late.parts["alpha"].next_round
    closed = late.round()
    assert closed.contributors == SILOS
    if plan.select == "best":
        late.round(NUMBERS)
    assert len(set(late.finish().values())) == 1
    records = [json.loads(line) for line in homes["alpha"].audit.read_text().splitlines()]
    assert [(one["silos"], one["jobs"]) for one in records if one.get("event") == "admission"] == [(["gamma"], ["job-1"])]
    assert not homes["beta"].audit.exists()


def test_it_enters_after_a_job_that_closed_no_round_too(begin):
    begin(silos=SILOS[:2]).round()
    begin("job-2", resume="job-1", silos=SILOS[:2])
    late = begin("job-3", resume="job-2", admit=["gamma"]).statistics()
    assert late.round().contributors == SILOS


def test_a_silo_that_the_job_does_not_name_is_told_that_it_keeps_nothing(begin):
    begin(silos=SILOS[:2]).round()
    with pytest.raises(NotReady, match="keeps nothing of the job"):
        begin("job-2", resume="job-1")


def test_one_that_kept_its_state_needs_nobodys_keys(begin):
    begin().round()
    again = begin("job-2", resume="job-1", admit=["gamma"])
    assert again.parts["gamma"].ask_entry(again.plan, ["job-1"]) is None
    assert again.round().contributors == SILOS


@pytest.mark.parametrize("why", ["the owner", "the job"])
def test_keys_are_given_only_where_the_silos_owner_and_the_job_allow_it(begin, homes, why):
    if why == "the owner":
        for name in SILOS:
            training = homes[name].config.training.model_copy(update={"admit": False})
            changed = homes[name].config.model_copy(update={"training": training})
            homes[name] = homes[name].model_copy(update={"config": changed})
    begin(silos=SILOS[:2]).round()
    if why == "the owner":
        with pytest.raises(ReleaseRefused, match="gamma"):
            begin("job-2", resume="job-1", admit=["gamma"])
        return
    again = begin("job-2", resume="job-1", silos=SILOS[:2])
    with pytest.raises(ReleaseRefused, match="gamma"):
        again.parts["alpha"].admit({"gamma": b""})


def test_keys_of_other_jobs_begin_nothing(begin, homes, tmp_path):
    begin(silos=SILOS[:2]).round()
    member = begin("job-2", resume="job-1", silos=SILOS[:2], admit=["gamma"]).parts["alpha"]
    (folder := tmp_path / "late").mkdir()
    late = Participation(homes["gamma"], job="job-2", folder=folder, trainer=InProcessTrainer(homes["gamma"], folder))
    with pytest.raises(NotReady, match="has not asked"):
        late.enter(b"")
    request = late.ask_entry(member._plan, ["job-0", "job-1"])
    with pytest.raises(KeyRefused, match="of other jobs"):
        late.enter(member.admit({"gamma": request})["gamma"])
