#pragma version 0.4.3
"""
@title Rosters: the frozen members of a job
@license Apache-2.0
@notice A roster is the code of an account that has no other purpose: a few bytes that return the
        rest when the account is called, then one record for each member. Reading code costs a
        fraction of reading storage. A CONE record is an account and the end of its ticket chain;
        a seller record is an account.
"""

from interfaces import IEnrolment
from modules import limits

CONE_SIZE: constant(uint256) = 52
SELLER_SIZE: constant(uint256) = 20
# In a CONE record: bits after the account in its first word, and bytes before the chain's end.
ACCOUNT_AT: constant(uint256) = 96
ROOT_AT: constant(uint256) = 20
# 256 sellers of 20 bytes, 64 CONE nodes need less; and a word that packing never fills.
MAX_SIZE: constant(uint256) = 5152
MAX_WORDS: constant(uint256) = MAX_SIZE // 32
MAX_CONES_SIZE: constant(uint256) = CONE_SIZE * limits.MAX_CONES
# After the length: copies what follows these ten bytes to memory, and returns it as the code.
LOADER: constant(Bytes[7]) = x"80600a5f395ff3"
# Copies what follows these eleven bytes to memory, and returns it: the records.
READER: constant(Bytes[11]) = x"600b380380600b5f395ff3"
RECORDS_AT: constant(uint256) = 11


@internal
def _freeze(records: Bytes[MAX_SIZE]) -> address:
    """
    @notice Make a roster.
    @param records Records, one after the other.
    @return The roster's account.
    """
    size: uint16 = convert(len(records) + RECORDS_AT, uint16)
    return raw_create(concat(x"61", convert(size, bytes2), LOADER, READER, records))


@internal
@pure
def _pack_sellers(
    accounts: DynArray[address, limits.MAX_APPLICANTS], members: uint256
) -> Bytes[MAX_SIZE]:
    """
    @notice Records of some sellers.
    @param accounts All that applied, in order.
    @param members Bitmap of those that go into the records, at most MAX_SELLERS.
    @return Their records, in the same order.
    """
    # Each value starts in one word and ends in the next one, or writes nothing there.
    words: uint256[MAX_WORDS] = empty(uint256[MAX_WORDS])
    at: uint256 = 0
    for position: uint256 in range(len(accounts), bound=limits.MAX_APPLICANTS):
        if (members >> position) & 1 == 0:
            continue
        account: uint256 = convert(accounts[position], uint256) << 96
        words[at // 32] |= account >> (at % 32 * 8)
        words[at // 32 + 1] |= account << (256 - at % 32 * 8)
        at += SELLER_SIZE
    return slice(abi_encode(words), 0, at)


@internal
@pure
def _pack_cones(
    cones: DynArray[IEnrolment.ConeApplication, limits.MAX_APPLICANTS], members: uint256
) -> Bytes[MAX_SIZE]:
    """
    @notice Records of some CONE nodes.
    @param cones All that applied, in order.
    @param members Bitmap of those that go into the records, at most MAX_CONES.
    @return Their records, in the same order.
    """
    words: uint256[MAX_WORDS] = empty(uint256[MAX_WORDS])
    at: uint256 = 0
    for position: uint256 in range(len(cones), bound=limits.MAX_APPLICANTS):
        if (members >> position) & 1 == 0:
            continue
        account: uint256 = convert(cones[position].account, uint256) << 96
        words[at // 32] |= account >> (at % 32 * 8)
        words[at // 32 + 1] |= account << (256 - at % 32 * 8)
        at += SELLER_SIZE
        ticket_root: uint256 = convert(cones[position].ticket_root, uint256)
        words[at // 32] |= ticket_root >> (at % 32 * 8)
        words[at // 32 + 1] |= ticket_root << (256 - at % 32 * 8)
        at += CONE_SIZE - SELLER_SIZE
    return slice(abi_encode(words), 0, at)


@internal
@view
def _read_cones(roster: address) -> Bytes[MAX_CONES_SIZE]:
    """
    @notice All records of a roster of CONE nodes, in one call.
    @param roster Roster of CONE nodes.
    @return The records.
    """
    return raw_call(roster, b"", max_outsize=MAX_CONES_SIZE, is_static_call=True)


@internal
@view
def _cone_account(roster: address, index: uint256) -> address:
    """
    @notice Account of a CONE node of a roster. Reverts beyond the last one.
    @param roster Roster of CONE nodes.
    @param index Position in the pool.
    @return The account.
    """
    return convert(convert(slice(roster.code, RECORDS_AT + index * CONE_SIZE, 20), bytes20), address)


@internal
@view
def _cone_accounts(members: address, bits: uint256) -> DynArray[address, limits.MAX_CONES]:
    """
    @notice Accounts of some nodes.
    @param members Roster of the job's nodes.
    @param bits Bitmap of the nodes.
    @return Their accounts, by index.
    """
    accounts: DynArray[address, limits.MAX_CONES] = []
    for index: uint256 in range(limits.MAX_CONES):
        if bits >> index == 0:
            break
        if (bits >> index) & 1 == 1:
            accounts.append(self._cone_account(members, index))
    return accounts


@internal
@view
def _seller(roster: address, index: uint256) -> address:
    """
    @notice Account of a seller of a roster. Reverts beyond the last one.
    @param roster Roster of sellers.
    @param index Seller index.
    @return The account.
    """
    return convert(convert(slice(roster.code, RECORDS_AT + index * SELLER_SIZE, 20), bytes20), address)


@internal
@view
def _count(roster: address, record_size: uint256) -> uint256:
    """
    @notice Number of members.
    @param roster Roster.
    @param record_size Bytes per member.
    @return The count; zero for an account without code.
    """
    size: uint256 = roster.codesize
    if size == 0:
        return 0
    return (size - RECORDS_AT) // record_size


@internal
@view
def _holds(roster: address, record_size: uint256, account: address) -> bool:
    """
    @notice Whether an account is a member.
    @param roster Roster.
    @param record_size Bytes per member.
    @param account Account to find.
    @return True if one of the records is of the account.
    """
    count: uint256 = self._count(roster, record_size)
    for index: uint256 in range(count, bound=limits.MAX_SELLERS):
        found: Bytes[20] = slice(roster.code, RECORDS_AT + index * record_size, 20)
        if convert(convert(found, bytes20), address) == account:
            return True
    return False
