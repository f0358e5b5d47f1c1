"""Which cases have a card for which filters hold, as SQL: `policy.filters.Filters.holds`, for millions of cases."""

from silo_app.policy.filters import Filters

__all__ = ["cases_where"]

_FIRST = """
    SELECT f.case_id FROM (
        SELECT case_id, position, sex, age, study_year, min(digest) AS digest FROM views GROUP BY case_id
    ) f WHERE true
"""  # SQLite takes the other columns from the row of the smallest digest: the view that a card is made of
_HAS = " AND EXISTS (SELECT 1 FROM labels l WHERE l.digest = f.digest AND l.finding = ? AND l.present = ?)"
_OLDEST = 90


def cases_where(filters: Filters) -> tuple[str, tuple[str | int, ...]]:
    """Return a query for the ids of these cases, in their order, and its arguments."""
    query, arguments = [_FIRST], list[str | int]()
    for column, words in (("position", filters.positions), ("sex", filters.sexes)):
        if words:
            query.append(f" AND f.{column} IN ({', '.join('?' * len(words))})")
            arguments += [word.value for word in words]
    if filters.age_bands:
        lows = [_OLDEST if band.endswith("+") else int(band.partition("-")[0]) for band in filters.age_bands]
        query.append(f" AND f.age >= 0 AND min(f.age / 10 * 10, {_OLDEST}) IN ({', '.join('?' * len(lows))})")
        arguments += lows
    for sign, year in ((">=", filters.year_from), ("<=", filters.year_to)):
        if year is not None:
            query.append(f" AND f.study_year {sign} ?")
            arguments.append(year)
    for findings, is_present in ((filters.present, 1), (filters.absent, 0)):
        for finding in findings:
            query.append(_HAS)
            arguments += [finding.value, is_present]
    return "".join([*query, " ORDER BY f.case_id"]), tuple(arguments)
