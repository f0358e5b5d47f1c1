"""What programs and the desk say to each other comes back as it was said."""

import pytest

from silo_app import errors
from silo_app.encoder.region import Region
from silo_app.errors import ImageUnsupported, SiloscopeError
from silo_app.policy.filters import Filters
from silo_app.search.desk.messages import DeskError, DeskSearch, Sought
from silo_app.search.examples import Example
from silo_app.search.find import Wanted
from silo_app.search.query import Refinement
from silo_app.search.rocchio import Weights
from silo_app.search.wire import decode, encode

EVERYTHING = Wanted(
    example=Example(content=b"DICM", name="image"),
    refinement=Refinement(
        more=[Example(case="3f9c21aa"), Example(content=b"other")],
        less=[Example(uid="1.2.3")],
        weights=Weights(more=0.5, less=0.25),
        region=Region(0.1, 0.2, 0.5, 0.6),
    ),
    without_patient=True,
    k=7,
    purpose="research",
    user="dr.x",
    budget_ms=500,
    private=True,
    filters=Filters(sexes=("F",), year_from=2015),
    preview=True,
)


def test_what_is_wanted_arrives_whole():
    assert decode(encode(DeskSearch.of(EVERYTHING)), DeskSearch).wanted() == EVERYTHING
    plain = Wanted(example=Example(case="3f9c21aa"), refinement=Refinement(more=[], less=[]))
    assert decode(encode(DeskSearch.of(plain)), DeskSearch).wanted() == plain


def test_pixels_and_uids_are_in_no_repr():
    said = repr(DeskSearch(sought=Sought(content=b"DICM-secret"), more=(Sought(uid="1.2.826.1"),)))
    assert "secret" not in said + repr(EVERYTHING)
    assert "1.2.826.1" not in said


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_arrives_as_what_it_was(name):
    kind = getattr(errors, name)
    more = {"reason": "not-dicom"} if kind is ImageUnsupported else {}
    raised = kind("what is wrong", where="here", remedy="Do this.", **more)
    error = decode(encode(DeskError.of(raised)), DeskError).error()
    assert (type(error), str(error)) == (kind, str(raised))
    assert getattr(error, "reason", "") == more.get("reason", "")


def test_an_error_of_another_version_is_an_error_still():
    error = DeskError(code="of-next-year", problem="something", remedy="Do this.").error()
    assert type(error) is SiloscopeError
