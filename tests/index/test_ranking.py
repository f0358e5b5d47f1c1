"""Ranking the views of cases: the fast way agrees with the plain one, ties and several views of a case included."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from silo_app.cases import CaseId
from silo_app.index.gallery import rank_cases, rank_rows

few_scores = st.sampled_from([-1.0, -0.25, 0.0, 0.5, 0.500001, 1.0])
few_cases = st.sampled_from([b"\x00" * 16, b"\x00" * 15 + b"\x01", b"\x7f" * 16, b"\x80" + b"\x00" * 15, b"\xff" * 16])


@given(st.lists(st.tuples(few_cases, few_scores), max_size=40), st.integers(0, 12))
def test_rows_are_ranked_as_cases_are(views, k):
    cases = np.frombuffer(b"".join(case for case, _ in views), np.uint8).reshape(-1, 16)
    scores = [score for _, score in views]
    expected = rank_cases([CaseId(case.hex()) for case, _ in views], scores, k)
    assert rank_rows(cases, np.array(scores, np.float64), k) == expected
