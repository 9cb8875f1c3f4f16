"""Money that contracts hold for accounts until it is pulled, by currency. A fold of events."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocol.types import Address, Wei


@dataclass(frozen=True, slots=True)
class Claim:
    """What one account was given in one currency so far, and what of it has left the contract."""

    credited_wei: Wei = Wei(0)
    withdrawn_wei: Wei = Wei(0)
    """Pulled by the account, or burned because nobody did."""

    @property
    def owed_wei(self) -> Wei:
        """What the account can pull now."""
        return Wei(self.credited_wei - self.withdrawn_wei)


Claims = Mapping[tuple[Address, Address], Claim]
"""By (currency, account)."""


def claim_of(claims: Claims, currency: Address, account: Address) -> Claim:
    """Return what is known of an account in a currency; all zero if nothing is."""
    return claims.get((currency, account), Claim())


def credit(claims: Claims, currency: Address, account: Address, amount_wei: Wei) -> Claims:
    """Note that an account can pull more."""
    claim = claim_of(claims, currency, account)
    more = replace(claim, credited_wei=Wei(claim.credited_wei + amount_wei))
    return {**claims, (currency, account): more}


def withdraw(claims: Claims, currency: Address, account: Address, amount_wei: Wei) -> Claims:
    """Note that an amount has left the contract."""
    claim = claim_of(claims, currency, account)
    less = replace(claim, withdrawn_wei=Wei(claim.withdrawn_wei + amount_wei))
    return {**claims, (currency, account): less}
