"""Planted bugs in the rules by which jobs leave the state and come back."""

from tests.mutants.mutant import Mutant

_SAME = "test_past.py::test_a_fold_that_lets_jobs_go_tells_the_same_as_one_that_keeps_them"
PAST = (
    Mutant(
        bug="of several jobs that leave at once only one is counted",
        file="past.py",
        old="past[job.phase] = past.get(job.phase, 0) + 1",
        new="past[job.phase] = state.past.get(job.phase, 0) + 1",
        killed_by=("test_past.py::test_jobs_come_back_in_the_order_of_their_numbers",),
    ),
    Mutant(
        bug="a job that comes back is counted twice",
        file="past.py",
        old="state.past[job.phase] - 1}",
        new="state.past[job.phase]}",
        killed_by=(_SAME,),
    ),
    Mutant(
        bug="a job that comes back stands behind the younger ones",
        file="past.py",
        old="jobs=dict(sorted(jobs.items()))",
        new="jobs=jobs",
        killed_by=("test_past.py::test_jobs_come_back_in_the_order_of_their_numbers",),
    ),
    Mutant(
        bug="bitmaps, which anybody logs, bring jobs back",
        file="past.py",
        old="for one in events if not isinstance(one.event, BitmapsLogged)",
        new="for one in events",
        killed_by=("test_past.py::test_bitmaps_bring_no_job_back_and_keep_none",),
    ),
    Mutant(
        bug="bitmaps, which anybody logs, keep a job from leaving",
        file="market.py",
        old="    if not isinstance(event, BitmapsLogged):\n        job = replace",
        new="    if event:\n        job = replace",
        killed_by=("test_past.py::test_bitmaps_bring_no_job_back_and_keep_none",),
    ),
    Mutant(
        bug="a job leaves one block too early",
        file="past.py",
        old="job.changed_block <= last_block",
        new="job.changed_block <= last_block + 1",
        killed_by=("test_past.py::test_only_jobs_that_are_over_are_quiet",),
    ),
    Mutant(
        bug="a lock of nothing is listed for ever",
        file="stakes.py",
        old="for one, wei in locked.items() if wei}",
        new="for one, wei in locked.items()}",
        killed_by=("test_past.py::test_stake_that_is_released_leaves_no_trace_of_its_job",),
    ),
)
