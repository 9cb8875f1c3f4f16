"""The benchmark of bulk transfers moves the same bytes every way, and notes both sides."""

from tests.bench.bench_bulk import MEGABYTE, WAYS, run
from tests.bench.rows import Plan


def test_every_way_moves_a_megabyte_from_memory_and_from_disk() -> None:
    rows = run(Plan(repetitions=1, max_values=MEGABYTE))
    assert [row.case.splitlines()[0] for row in rows] == [
        "1 MB, memory to memory",
        "1 MB, disk to disk",
    ]
    for row in rows:
        assert [one.name for one in (row.ours, *row.others)] == list(WAYS)
        assert all(len(one.seconds) == 5 for one in (row.ours, *row.others))
