"""Gossip topic names and stream protocol ids. Each carries a version."""

from typing import Final

from protocol.types import Address, JobId

BLOB_PROTOCOL: Final = "/d2m/blob/1"
CHUNKS_PROTOCOL: Final = "/d2m/chunks/1"
DIAL_BACK_PROTOCOL: Final = "/d2m/dial-back/1"
MESSAGES_PROTOCOL: Final = "/d2m/messages/1"


def updates_topic(chain_id: int, market: Address, job_id: JobId) -> str:
    """Where the sellers of a job announce their updates, for its CONE nodes."""
    return f"d2m/1/{chain_id}/{market.hex()}/{job_id}/updates"


def votes_topic(chain_id: int, market: Address, job_id: JobId) -> str:
    """Where the CONE nodes of a job speak to each other, and its buyer to them."""
    return f"d2m/1/{chain_id}/{market.hex()}/{job_id}/votes"
