"""What a devnet tells of deposits."""

import io

from rich.console import Console

from d2m_node.devnet.narrator import Narrator
from d2m_node.devnet.report import TextReport
from protocol.events import DepositForfeited, DepositReturned
from tests.support.job import DEPOSIT_WEI, JOB, Cast


def test_a_burned_deposit_is_told_once_and_a_returned_one_is_not() -> None:
    cast = Cast()
    cast.start()
    honest, other = (node.signer.address for node in cast.sellers[:2])
    narrator = Narrator({other: "seller-2"})
    before = cast.market.state.jobs[JOB]
    cast.market.apply(
        DepositReturned(job=JOB, seller=honest, amount_wei=DEPOSIT_WEI),
        DepositForfeited(job=JOB, seller=other, amount_wei=DEPOSIT_WEI),
    )
    after = cast.market.state.jobs[JOB]
    (told,) = narrator.tell(before, after)
    assert told == {
        "event": "deposit_burned",
        "seller": "seller-2",
        "amount_wei": DEPOSIT_WEI,
        "reason": "forfeited",
    }
    assert list(narrator.tell(after, after)) == []
    shown = io.StringIO()
    TextReport(Console(file=shown)).show(told)
    assert shown.getvalue().startswith("deposit of seller-2 burned")
