"""Who may have what of a job, and when: the one table that everything served is held against.

Pure. The library asks it for each blob, each pulled message and each topic. Whoever asks is judged
by what the chain says of its accounts, never by what it says of itself. All CONE nodes of a job are
alike, so that neither a request nor its answer betrays who votes.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from d2m_node.ports import Purpose, Reference, TopicPlace
from protocol.digest import RoundHeader
from protocol.job import OVER, JobPhase, JobState
from protocol.request import ModelAccess
from protocol.sortition import BallotKind
from protocol.types import Address, Digest
from protocol.wire import messages as wire
from protocol.wire.messages import GossipMessage
from protocol.wire.topics import Topic


class Standing(Enum):
    """What an account is to a job."""

    ANYBODY = "anybody"
    """Everyone, known or not."""
    BUYER = "buyer"
    SELLER = "seller"
    CONE = "cone"


class Matter(Enum):
    """What a blob is to its job, as the job stands."""

    REQUEST = "request"
    """The body of a request."""
    INPUT = "input"
    """An update, or a part of the validation set, of a job that is not over."""
    SPENT_INPUT = "spent input"
    """The same of a job that is over: nothing is decided from it any more."""
    ROUND_STATE = "round state"
    """Parameters and inclusion weights that the open round of updates starts from."""
    OTHER_STATE = "other state"
    """Any other state: of an earlier round, of one that is not decided, or no round is open."""
    NEW_MODEL = "new model"
    """Parameters with which training ended, before the job is settled."""
    SETTLED_MODEL = "settled model"
    """The same once it is."""
    OWN_FILE = "own file"
    """What this node made for its operator."""


_NOBODY: Final = frozenset[Standing]()
_POOL: Final = frozenset({Standing.CONE})

READERS: Final[Mapping[Matter, frozenset[Standing]]] = {
    Matter.REQUEST: frozenset({Standing.ANYBODY}),
    Matter.INPUT: _POOL,
    Matter.SPENT_INPUT: _NOBODY,
    # Sellers train on it. Nobody else needs a model that is not finished.
    Matter.ROUND_STATE: _POOL | {Standing.SELLER},
    Matter.OTHER_STATE: _POOL,
    # The buyer pays for it, and has it first.
    Matter.NEW_MODEL: _POOL | {Standing.BUYER},
    Matter.SETTLED_MODEL: _POOL | {Standing.BUYER, Standing.SELLER},
    Matter.OWN_FILE: _NOBODY,
}
"""Who may have a blob, unless the request says otherwise."""

SETTLED_READERS: Final[Mapping[ModelAccess, frozenset[Standing]]] = {
    ModelAccess.PARTICIPANTS: READERS[Matter.SETTLED_MODEL],
    ModelAccess.BUYER_ONLY: READERS[Matter.NEW_MODEL],
    ModelAccess.PUBLIC: READERS[Matter.SETTLED_MODEL] | {Standing.ANYBODY},
}
"""Who may have the model of a settled job, by what its request says."""

HANDED_TO: Final[Mapping[ModelAccess, frozenset[Standing]]] = {
    ModelAccess.PARTICIPANTS: SETTLED_READERS[ModelAccess.PARTICIPANTS],
    # CONE nodes compute with the model. That makes it no file for their operators.
    ModelAccess.BUYER_ONLY: frozenset({Standing.BUYER}),
    ModelAccess.PUBLIC: SETTLED_READERS[ModelAccess.PUBLIC],
}
"""To whose operator a node hands the final model as a file."""

TOPIC_SPEAKERS: Final[Mapping[Topic, frozenset[Standing]]] = {
    Topic.UPDATES: frozenset({Standing.SELLER}),
    Topic.VALIDATION: frozenset({Standing.BUYER, Standing.CONE}),
    Topic.VOTES: frozenset({Standing.CONE}),
}
"""Who speaks on a topic. The job's CONE nodes are the audience of all of them."""


NEED_NO_JOB: Final = frozenset({Purpose.REQUEST, Purpose.OWN_REQUEST, Purpose.MODEL})
"""What these blobs are does not depend on how their job stands."""


def find_standings(job: JobState | None, accounts: Iterable[Address]) -> frozenset[Standing]:
    """Return what the accounts of one peer are to a job. An application alone is nothing."""
    found = {Standing.ANYBODY}
    if job is None:
        return frozenset(found)
    for account in accounts:
        if account == job.buyer:
            found.add(Standing.BUYER)
        if job.seller_index(account) is not None:
            found.add(Standing.SELLER)
        if job.cone_index(account) is not None:
            found.add(Standing.CONE)
    return frozenset(found)


def find_matter(kept_for: Reference, digest: Digest, job: JobState | None) -> Matter | None:
    """Return what a blob that is kept for a job is to it; None if the job is not known."""
    match kept_for.purpose:
        case Purpose.REQUEST | Purpose.OWN_REQUEST:
            return Matter.REQUEST
        case Purpose.MODEL:
            return Matter.OWN_FILE
        case _ if job is None:
            return None
        case Purpose.UPDATE | Purpose.OWN_UPDATE | Purpose.VALIDATION:
            return Matter.SPENT_INPUT if job.phase in OVER else Matter.INPUT
        case Purpose.STATE:
            return _find_state(digest, job)


def _find_state(digest: Digest, job: JobState) -> Matter:
    if job.ended is not None:
        if digest != job.ended.model_digest:
            return Matter.OTHER_STATE
        is_settled = job.phase is JobPhase.SETTLED
        return Matter.SETTLED_MODEL if is_settled else Matter.NEW_MODEL
    is_round = job.ballot is not None and job.ballot.kind is BallotKind.ROUND
    if job.phase is not JobPhase.TRAINING or not is_round or not job.decided_rounds:
        return Matter.OTHER_STATE
    newest = RoundHeader.decode(job.decided_rounds[-1].header)
    is_newest = digest in (newest.model_digest, newest.sampler_digest)
    return Matter.ROUND_STATE if is_newest else Matter.OTHER_STATE


def may_read(
    matter: Matter,
    standings: frozenset[Standing],
    model_access: ModelAccess = ModelAccess.PARTICIPANTS,
) -> bool:
    """Tell whether a peer may have a blob, in the clear or, if the job wants that, sealed."""
    is_settled = matter is Matter.SETTLED_MODEL
    readers = SETTLED_READERS[model_access] if is_settled else READERS[matter]
    return not readers.isdisjoint(standings)


def may_be_handed(standings: frozenset[Standing], model_access: ModelAccess) -> bool:
    """Tell whether an operator's account may have the final model as a file."""
    return not HANDED_TO[model_access].isdisjoint(standings)


def may_pull(message: GossipMessage, job: JobState, accounts: frozenset[Address]) -> bool:
    """Tell whether a peer may have a kept message: as a CONE node, or because it said it."""
    if Standing.CONE in find_standings(job, accounts):
        return True
    return find_speaker(message, job) in accounts


def find_speaker(message: GossipMessage, job: JobState) -> Address | None:
    """Return the account that a message claims to be from; None if there is no such one."""
    match message:
        case wire.UpdateCommit() | wire.UpdateOpening():
            index = message.seller_index
            return job.sellers[index].account if index < len(job.sellers) else None
        case wire.ValidationOffer():
            return job.buyer
        case _:
            index = message.cone_index
            return job.cones[index].account if index < len(job.cones) else None


def find_place(topic: Topic, standings: frozenset[Standing]) -> TopicPlace:
    """Return what a peer has to do with a topic of a job."""
    if Standing.CONE in standings:
        return TopicPlace.AUDIENCE
    is_speaker = not TOPIC_SPEAKERS[topic].isdisjoint(standings)
    return TopicPlace.SPEAKER if is_speaker else TopicPlace.OUTSIDE


def covers(kept_for: Reference, wanted: Reference) -> bool:
    """Tell whether a blob that is kept for one job may be taken for another without asking.

    Only if it is the same job and purpose, or a request, which everybody may have. Else whoever
    names a hash could make this node serve a blob of one job to those who take part in another.
    """
    kept, purpose = _PUBLIC_NAMES.get(kept_for.purpose), _PUBLIC_NAMES.get(wanted.purpose)
    kept, purpose = kept or kept_for.purpose, purpose or wanted.purpose
    is_same_job = kept_for.job_id == wanted.job_id or purpose is Purpose.REQUEST
    return kept is purpose and is_same_job


_PUBLIC_NAMES: Final = {Purpose.OWN_REQUEST: Purpose.REQUEST, Purpose.OWN_UPDATE: Purpose.UPDATE}
"""What a purpose is to others."""
