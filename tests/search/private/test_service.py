"""A silo's rules for private questions, each over a real index process: who is scored and shown, how often, how exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from silo_app.catalogue import Catalogue
from silo_app.config import load
from silo_app.policy.canaries import write_canaries
from silo_app.policy.refusal import RefusalCode
from silo_app.search import local
from silo_app.search.envelope import open_reply, seal
from silo_app.search.messages import Refusal
from silo_app.search.private.asker import Asking
from silo_app.search.private.messages import CardsAnswer, CardsRequest, PrivateAnswer, PrivateRequest
from silo_app.search.server import IndexProcess

ENCODER = "ab" * 32
DEFAULT = "private: {answer: true, processes: 1}"
NOISE = 0.0001
ROUNDING = 0.001
"""What half precision and whole numbers change."""
DAY_S = 86_400


@pytest.fixture(scope="module")
def session() -> Asking:
    return Asking.begin(16)


@dataclass
class Scores:
    """What an asker has opened of one answer."""

    query: str
    answer: PrivateAnswer
    similarity: np.ndarray

    def best(self, count):
        return [int(slot) for slot in np.argsort(-self.similarity, kind="stable")[:count]]


class South:
    """A silo of 30 patients with two studies each, its index process, and whoever asks it."""

    def __init__(self, silo, federation, session):
        self.silo, self.federation, self.session = silo, federation, session
        self.ahead_s = 0.0
        self.start()

    def start(self):
        self.process = IndexProcess(load(self.silo.home.kit), clock=self.now)

    def restart(self):
        self.process.close()
        self.start()

    def now(self):
        return time.time() + self.ahead_s

    def said(self, request, answer, exchange=None):
        asker = self.federation.identity(request.asker)
        frame = seal(asker, request)
        return open_reply(asker, "south", frame, (exchange or self.process.answer_frame)(frame), answer, Refusal)

    def ask(self, vector, *, keys=True, exchange=None, **fields):
        """Return the opened scores, or the refusal."""
        known = {
            "issued_at_ms": int(self.now() * 1000),
            "budget_ms": 30_000,
            "purpose": "care",
            "asker": "north",
            "encoder_version": ENCODER,
            "dimension": 16,
            "ciphertext": self.session.ask(vector).ciphertext,
            "session": "0" * 32,
            "keys": self.session.keys if keys else b"",
        }
        request = PrivateRequest(**(known | fields))
        answer = self.said(request, PrivateAnswer, exchange)
        if isinstance(answer, Refusal):
            return answer
        return Scores(request.query_id, answer, self.session.open(list(answer.blocks), answer.views))

    def cards(self, scores, slots, **fields):
        """Return what is shown of the cases in these slots, or the refusal."""
        wanted = sorted(slots)
        alike = [slot in scores.best(scores.answer.kept_back) for slot in wanted]
        known = {
            "issued_at_ms": int(self.now() * 1000),
            "budget_ms": 5_000,
            "purpose": "care",
            "asker": "north",
            "scored": scores.query,
            "silo": "south",
            "slots": tuple(wanted),
            "alike": tuple(alike),
        }
        return self.said(CardsRequest(**(known | fields)), CardsAnswer)

    def cases(self):
        """Return the case that each slot holds now: what the silo alone knows."""
        held = self.process._private._held
        return [held.cases.index.case_of(int(row)) for row in held.order]

    def patients(self):
        with Catalogue.open(self.silo.home.catalogue) as catalogue:
            return {view.case: view.patient for view in catalogue.views()}

    def digests_of(self, patient):
        with Catalogue.open(self.silo.home.catalogue) as catalogue:
            return [view.digest for view in catalogue.views() if view.patient == patient]

    def any(self):
        """Return the vector of an image, the case it is of, and the patient."""
        digest, vector = next(iter(self.silo.vectors.items()))
        with Catalogue.open(self.silo.home.catalogue) as catalogue:
            case = catalogue.case_of_digest(digest)
        return vector, case, self.patients()[case]

    def take_out(self, patient):
        digests = self.digests_of(patient)
        for digest in digests:
            self.silo.recall(digest)
        return digests

    def exact(self, vector):
        """Return the similarities of all that the catalogue holds, ascending."""
        with Catalogue.open(self.silo.home.catalogue) as catalogue:
            held = {view.digest for view in catalogue.views()}
        return np.sort([float(self.silo.vectors[digest] @ vector) for digest in held])

    def events(self):
        return [json.loads(line) for line in self.silo.home.audit.read_text().splitlines()]


@pytest.fixture
def south(stocked, session):
    """Start the silo, given its `release` settings."""
    opened = []

    def make(release=DEFAULT, cases=60):
        silo = stocked("south", cases=cases, studies=2, config=f"release: {{{release}}}\n")
        silo.index()
        opened.append(South(silo, stocked.federation, session))
        return opened[-1]

    yield make
    for one in opened:
        one.process.close()


def others(south, scores, count, *, not_of):
    """Return the least similar slots, each of another patient, and none of `not_of`."""
    of, seen, slots = south.patients(), {not_of}, []
    for slot in reversed(scores.best(len(scores.similarity))):
        patient = of[south.cases()[slot]]
        if patient not in seen and len(slots) < count:
            seen.add(patient)
            slots.append(slot)
    return slots


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestWhoIsScored:
    """The catalogue decides, as it is when the question comes."""

    def test_a_patient_who_was_taken_out_is_scored_no_more(self, south):
        south = south()
        vector, _, patient = south.any()
        before = south.ask(vector)
        assert before.answer.views == 60
        assert before.similarity.max() > 0.99
        assert len(south.take_out(patient)) == 2
        for _ in range(2):
            after = south.ask(vector)
            assert after.answer.views == 58
            assert np.allclose(np.sort(after.similarity), south.exact(vector), atol=ROUNDING)
            assert after.similarity.max() < 0.9
            south.restart()  # the index still holds the vectors

    def test_which_slot_was_taken_out_is_not_told(self, south):
        """The order is another: no slot of an earlier answer can be looked for in a later one."""
        south = south()
        vector, _, patient = south.any()
        before, first = south.ask(vector), south.cases()
        south.take_out(patient)
        after, second = south.ask(vector), south.cases()
        assert len(before.similarity) - len(after.similarity) == 2
        stayed = [case for case in first if case in set(second)]
        assert set(stayed) == set(second)
        assert sum(one == other for one, other in zip(stayed, second, strict=True)) < 15

    def test_scores_of_before_are_good_for_the_cards_of_those_who_stayed(self, south):
        south = south("same_patient: show, " + DEFAULT)
        vector, case, patient = south.any()
        before, held = south.ask(vector), south.cases()
        south.take_out(patient)
        south.ask(vector)  # the order is another from here on
        shown = south.cards(before, before.best(10))
        assert case not in {hit.case for hit in shown.hits}
        assert [hit.case for hit in shown.hits] == [held[hit.slots[0]] for hit in shown.hits]
        assert len(shown.hits) >= 8

    def test_whoever_is_taken_out_while_it_is_scored_is_in_no_answer(self, south, monkeypatch):
        south = south()
        vector, _, patient = south.any()
        scored = south.process._private._workers.score

        def slow(*arguments, **options):
            blocks = scored(*arguments, **options)
            south.take_out(patient)
            return blocks

        monkeypatch.setattr(south.process._private._workers, "score", slow)
        assert south.ask(vector).code is RefusalCode.BUSY
        assert south.ask(vector).answer.views == 58

    def test_a_gallery_of_whom_too_few_are_left_is_not_scored(self, south):
        south = south(cases=12)
        vector, _, patient = south.any()
        assert south.ask(vector).answer.views == 12
        south.take_out(patient)
        assert south.ask(vector).code is RefusalCode.GALLERY_TOO_SMALL

    def test_a_catalogue_that_was_exchanged_is_the_one_that_counts(self, south):
        south = south()
        vector, _, patient = south.any()
        away = south.silo.home.catalogue.with_suffix(".away")
        with Catalogue.open(south.silo.home.catalogue) as catalogue:
            catalogue._connection.execute("VACUUM INTO ?", (str(away),))
        south.take_out(patient)
        assert south.ask(vector).answer.views == 58
        away.rename(south.silo.home.catalogue)
        assert south.ask(vector).answer.views == 60

    def test_scores_of_a_generation_before_are_good_for_its_cards_whoever_else_asks(self, south):
        south = south("same_patient: show, " + DEFAULT)
        vector, _, _ = south.any()
        before, held = south.ask(vector), south.cases()
        south.silo.stock(99, 3)
        south.silo.index()
        while south.ask(vector, asker="west").answer.generation == "000001":
            time.sleep(0.1)
        shown = south.cards(before, before.best(10))
        assert all(held[slot] == hit.case for hit in shown.hits for slot in hit.slots)
        assert len(shown.hits) == 10

    def test_scores_of_the_latest_three_orders_are_kept(self, south):
        south = south("same_patient: show, " + DEFAULT)
        vector, _, _ = south.any()
        asked = []
        for digest in list(south.silo.vectors)[-4:]:
            asked.append(south.ask(vector))
            south.silo.recall(digest)
        assert south.cards(asked[0], asked[0].best(20)).code is RefusalCode.STALE
        assert all(isinstance(south.cards(scores, scores.best(20)), CardsAnswer) for scores in asked[1:])

    def test_a_rebuilt_index_of_the_same_name_is_another(self, south):
        south = south()
        vector, _, _ = south.any()
        south.ask(vector)
        before = south.process._private._held.cases
        shutil.rmtree(south.silo.home.index)
        south.silo.index()
        while south.process._gallery.get() is before:
            time.sleep(0.05)
        assert south.ask(vector).answer.generation == before.generation
        assert south.process._private._held.cases is south.process._gallery.get()

    def test_a_question_looks_once_a_change_who_is_held_and_reads_no_card(self, south, monkeypatch):
        south = south()
        vector, _, _ = south.any()
        reads, real = [], Catalogue.case_names
        monkeypatch.setattr(Catalogue, "case_names", lambda catalogue: reads.append(1) or real(catalogue))
        monkeypatch.setattr(Catalogue, "card_columns", None)
        for _ in range(2):
            assert south.ask(vector).answer.views == 60
        assert len(reads) == 1

    def test_a_change_of_nobody_who_is_scored_costs_nothing(self, south):
        """Neither the order nor the keys of a session: the processes go on."""
        south = south()
        vector, _, _ = south.any()
        south.ask(vector)
        order, running = south.cases(), [process.pid for process in south.process._private._workers._running]
        south.silo.stock(99, 3)
        assert south.ask(vector, keys=False).answer.views == 60
        assert south.cases() == order
        assert [process.pid for process in south.process._private._workers._running] == running


class TestWhatIsLeft:
    """Vectors of private queries are in no file: no end of the process leaves them behind."""

    def test_a_process_that_is_killed_leaves_no_vector(self, south):
        south = south()
        vector, _, _ = south.any()
        home = south.silo.home
        south.process.close()
        code = "import sys; from silo_app.cli.serve import serve; from pathlib import Path; serve(Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, home.kit]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()) as process:
            while "answers at" not in (line := process.stderr.readline()):
                assert line, "it ended before it listened"
            found = south.ask(vector, exchange=lambda frame: local.exchange(home.index_socket, frame, 60))
            scoring = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert found.similarity.max() > 0.99
        assert scoring
        while any(map(runs, scoring)):  # their pipe has ended, and so do they
            time.sleep(0.05)
        stored = vector.astype(np.float16)
        for path in home.root.rglob("*"):
            if path.is_file() and not path.is_relative_to(home.index):
                content = path.read_bytes()
                assert stored.tobytes() not in content, path
                assert stored.astype(np.float32).tobytes() not in content, path
        assert {path.name for path in (home.root / "private").iterdir()} <= {"budget.db", "budget.db-wal", "budget.db-shm"}

    def test_nothing_but_the_budget_is_written(self, south):
        south = south()
        south.ask(south.any()[0])
        written = {path.name for path in (south.silo.home.root / "private").iterdir()}
        assert written <= {"budget.db", "budget.db-wal", "budget.db-shm"}

    @pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
    def test_the_scoring_processes_keep_no_vectors_once_they_are_prepared(self, south):
        south = south()
        south.ask(south.any()[0])
        (scoring,) = south.process._private._workers._running
        for pid in (scoring.pid, os.getpid()):
            assert "siloscope-vectors" not in Path(f"/proc/{pid}/maps").read_text()
            opened = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
            assert not any("siloscope-vectors" in name for name in opened)

    def test_what_an_earlier_version_left_is_removed(self, south):
        south = south()
        folder = south.silo.home.root / "private"
        folder.mkdir(exist_ok=True)
        (folder / "vectors-abc.npy").write_bytes(b"vectors")
        south.restart()
        assert not (folder / "vectors-abc.npy").exists()


class TestWhoIsShown:
    """The second step: the rules of a plain answer, for the cases that the asker chose."""

    @pytest.mark.parametrize(
        ("release", "purpose"),
        [("", "care"), ("same_patient: coarsen, ", "care"), ("same_patient: show, ", "research")],
    )
    def test_the_querys_own_patient_is_withheld(self, south, release, purpose):
        south = south(release + DEFAULT)
        vector, case, patient = south.any()
        scores = south.ask(vector, purpose=purpose)
        own = [slot for slot, name in enumerate(south.cases()) if south.patients()[name] == patient]
        slots = {*scores.best(20), *own}
        shown = south.cards(scores, slots, purpose=purpose)
        assert south.cases()[scores.best(1)[0]] == case
        assert {south.patients()[hit.case] for hit in shown.hits}.isdisjoint({patient})
        assert len(shown.hits) >= 5
        assert south.events()[-1]["kept_back"] >= 1

    def test_the_silo_tells_how_many_of_the_nearest_may_be_of_the_querys_patient(self, south):
        south = south("max_hits: 7, " + DEFAULT)
        vector, _, _ = south.any()
        answer = south.ask(vector).answer
        assert answer.kept_back == south.process._private._held.cases.sense.nearest > 0
        assert answer.most == 7
        south.process._private._settings = south.process._private._settings.model_copy(update={"same_patient": "show"})
        assert south.ask(vector).answer.kept_back == 0

    def test_whoever_has_one_case_that_stands_out_is_withheld_with_all(self, south):
        """One bit is enough: it need not be of each case."""
        south = south()
        vector, _, patient = south.any()
        of, scores = south.patients(), south.ask(vector)
        own = [slot for slot, name in enumerate(south.cases()) if of[name] == patient]
        slots = sorted({*own, *others(south, scores, 8, not_of=patient)})
        shown = south.cards(scores, slots, alike=tuple(slot == own[0] for slot in slots))
        assert len(own) == 2
        assert len(shown.hits) == 8
        assert {of[hit.case] for hit in shown.hits}.isdisjoint({patient})

    def test_of_too_many_those_in_their_middle_are_shown(self, south):
        """The silo is not told which are near the query; what it can see is where those lie that the asker wants."""
        south = south("max_hits: 6, same_patient: show, " + DEFAULT)
        vector, _, _ = south.any()
        scores = south.ask(vector)
        slots = scores.best(20)
        held = south.process._private._held
        vectors = held.cases.index.vectors(held.order[slots])
        middle = np.argsort(-(vectors @ vectors.sum(axis=0)))[:6]
        shown = south.cards(scores, slots)
        assert [hit.slots for hit in shown.hits] == [(slots[one],) for one in middle]

    def test_slots_that_hold_nothing_show_nothing(self, south):
        south = south()
        scores = south.ask(south.any()[0])
        assert south.cards(scores, [200_000, 200_001]).code is RefusalCode.TOO_FEW_SIMILAR

    def test_it_is_shown_where_policy_and_purpose_allow_it(self, south):
        south = south("same_patient: show, " + DEFAULT)
        vector, case, _ = south.any()
        scores = south.ask(vector)
        assert case in {hit.case for hit in south.cards(scores, scores.best(10)).hits}

    def test_fewer_patients_than_the_policy_wants_are_not_shown(self, south):
        south = south()
        vector, case, patient = south.any()
        scores = south.ask(vector)
        few = others(south, scores, 4, not_of=patient)
        of = south.patients()
        twice = [slot for slot, name in enumerate(south.cases()) if of[name] == of[south.cases()[few[0]]]]
        own = [south.cases().index(case)]
        for slots in (few, {*few, *twice}, few + own, [few[0]]):
            assert south.cards(south.ask(vector), slots).code is RefusalCode.TOO_FEW_SIMILAR
        enough = others(south, scores, 5, not_of=patient)
        assert len(south.cards(south.ask(vector), enough).hits) == 5

    @pytest.mark.parametrize("is_withheld", [True, False], ids=["withheld", "shown"])
    def test_a_canary_among_the_slots_alerts_and_looks_like_any_other_case(self, south, is_withheld):
        south = south()
        vector, case, patient = south.any()
        first = south.ask(vector)
        slots = [*others(south, first, 9, not_of=patient), south.cases().index(case)]
        planted = case if is_withheld else south.cases()[slots[0]]
        before = south.cards(first, slots)
        write_canaries(south.silo.home.canaries, [planted])
        second = south.ask(vector)
        assert south.events()[-1]["event"] != "canary"  # a canary is found by who wants its card, not by every score
        after = south.cards(second, slots)
        assert after.hits == before.hits
        assert (planted in {hit.case for hit in after.hits}) is not is_withheld
        alert = south.events()[-1]
        assert (alert["event"], alert["cases"], alert["asker"]) == ("canary", [planted], "north")

    def test_asking_about_one_patient_ends_for_the_day(self, south):
        south = south("similar_queries_per_day: 2, " + DEFAULT)
        vector, _, patient = south.any()

        def shown():
            scores = south.ask(vector)
            return south.cards(scores, others(south, scores, 8, not_of=patient))

        assert [isinstance(shown(), CardsAnswer) for _ in range(2)] == [True, True]
        assert shown().code is RefusalCode.REPEATED
        south.restart()
        assert shown().code is RefusalCode.REPEATED
        south.ahead_s = DAY_S
        assert isinstance(shown(), CardsAnswer)

    def test_both_steps_ask_for_the_purpose(self, south):
        south = south("purposes: [care], " + DEFAULT)
        vector, _, _ = south.any()
        assert south.ask(vector, purpose="research").code is RefusalCode.PURPOSE
        scores = south.ask(vector)
        assert south.cards(scores, scores.best(20), purpose="research").code is RefusalCode.PURPOSE
        assert isinstance(south.cards(scores, scores.best(20)), CardsAnswer)  # who is not heard has spent nothing

    def test_both_steps_ask_who_it_is(self, south):
        south = south("askers: [west], " + DEFAULT)
        vector, _, _ = south.any()
        assert south.ask(vector).code is RefusalCode.ASKER
        scores = south.ask(vector, asker="west")
        assert isinstance(south.cards(scores, scores.best(20), asker="west"), CardsAnswer)
        scores = south.ask(vector, asker="west")
        private = south.process._private
        private._settings = private._settings.model_copy(update={"askers": ("north",)})
        assert south.cards(scores, scores.best(20), asker="west").code is RefusalCode.ASKER

    @pytest.mark.parametrize(("release", "most"), [("", 20), ("max_hits: 3, ", 3)])
    def test_no_more_cases_are_shown_than_the_policy_allows(self, south, release, most):
        south = south(release + DEFAULT)
        vector, _, _ = south.any()
        scores = south.ask(vector)
        assert len(south.cards(scores, scores.best(60)).hits) == most

    def test_what_is_shown_is_what_was_asked_for_and_each_case_once(self, south):
        south = south()
        vector, _, _ = south.any()
        scores = south.ask(vector)
        shown = south.cards(scores, [*scores.best(60)[-8:], 200_000])
        assert {slot for hit in shown.hits for slot in hit.slots} <= set(scores.best(60)[-8:])
        assert [hit.case for hit in shown.hits] == [south.cases()[hit.slots[0]] for hit in shown.hits]
        assert len({hit.case for hit in shown.hits}) == len(shown.hits) == 8

    def test_scores_are_good_for_cards_once_for_their_asker_and_for_a_while(self, south):
        south = south()
        vector, _, _ = south.any()
        scores = south.ask(vector)
        assert south.cards(scores, scores.best(20), asker="west").code is RefusalCode.STALE
        assert isinstance(south.cards(scores, scores.best(20)), CardsAnswer)
        assert south.cards(scores, scores.best(20)).code is RefusalCode.STALE
        late = south.ask(vector)
        south.ahead_s = 301.0
        assert south.cards(late, late.best(20)).code is RefusalCode.STALE


class TestHowExactlyAndHowOften:
    """What is set against whoever would solve for a gallery's vectors."""

    def test_every_answer_has_noise_of_its_own(self, south):
        south = south()
        vector, _, _ = south.any()
        one, other = south.ask(vector).similarity, south.ask(vector).similarity
        moved = np.abs(one - other)
        assert (moved > 0).mean() > 0.9
        assert NOISE / 2 < moved.max() <= 2 * NOISE + 1e-9

    def test_the_order_is_another_for_each_generation_and_each_start(self, south):
        south = south()
        vector, _, _ = south.any()
        seen = [south.ask(vector)]
        orders = [south.cases()]
        south.silo.index()
        while (newer := south.ask(vector)).answer.generation == seen[0].answer.generation:
            time.sleep(0.1)
        seen.append(newer)
        orders.append(south.cases())
        south.restart()
        seen.append(south.ask(vector))
        orders.append(south.cases())
        for number, scores in enumerate(seen):
            assert set(orders[number]) == set(orders[0])
            rows = south.process._private._held.cases.index
            orders.append([rows.case_of(row) for row in range(rows.views)])  # nor is it the index's own
            assert np.allclose(np.sort(scores.similarity), np.sort(seen[0].similarity), atol=2 * NOISE + 1e-9)
        for number, order in enumerate(orders[:3]):
            for later in orders[number + 1 :]:
                assert sum(one == two for one, two in zip(order, later, strict=True)) < 15
        assert not np.allclose(seen[0].similarity, seen[1].similarity, atol=0.1)
        assert not np.allclose(seen[1].similarity, seen[2].similarity, atol=0.1)

    def test_the_order_is_the_same_within_a_generation(self, south):
        south = south()
        vector, _, _ = south.any()
        assert np.allclose(south.ask(vector).similarity, south.ask(vector).similarity, atol=2 * NOISE + 1e-9)

    @pytest.mark.parametrize(
        "release",
        [
            "private: {answer: true, processes: 1, queries_per_day: 2}",
            "queries_per_day: 2, " + DEFAULT,
            "user_queries_per_day: 2, " + DEFAULT,
        ],
    )
    def test_the_days_queries_are_counted_in_private_too(self, south, release):
        south = south(release)
        vector, _, _ = south.any()
        for _ in range(2):
            scores = south.ask(vector, user="dr.one")
            assert isinstance(south.cards(scores, scores.best(20), user="dr.one"), CardsAnswer)  # which is no query
        assert south.ask(vector, user="dr.one").code is RefusalCode.BUDGET
        assert isinstance(south.ask(vector, asker="west", user="dr.one"), Scores)
        south.restart()
        assert south.ask(vector, user="dr.one").code is RefusalCode.BUDGET
        south.ahead_s = DAY_S
        assert isinstance(south.ask(vector, user="dr.one"), Scores)
