"""What a market has behind it costs a node next to no memory."""

import pytest

from tests.bench.bench_past import follow_old_market

pytestmark = pytest.mark.slow

FEW, MANY = 200, 700


def test_a_past_job_takes_a_tenth_of_the_memory_of_one_that_is_kept_and_a_page_or_two_of_disk() -> (
    None
):
    few, many = follow_old_market(FEW), follow_old_market(MANY)
    kept = follow_old_market(MANY, "--keep")
    grown = many["resident_bytes"] - few["resident_bytes"]
    assert 10 * grown < kept["resident_bytes"] - few["resident_bytes"]
    assert many["in_state"] <= 2
    assert many["disk_bytes"] < 8192 * MANY
