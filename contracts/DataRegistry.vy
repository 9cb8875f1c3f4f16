#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Data registry
@license Apache-2.0
@notice Sellers' data sets by tags. The data themselves never leave the seller.
"""

from interfaces import IDataRegistry
from modules import limits
from modules import tag_sets

implements: IDataRegistry


struct Dataset:
    seller: address
    tags: DynArray[bytes32, limits.MAX_TAGS]
    min_price_wei: uint256
    min_price_token: uint256


datasets: HashMap[uint256, Dataset]
dataset_count: public(uint256)
counts: HashMap[bytes32, uint256]


@external
def register_dataset(
    tags: DynArray[bytes32, limits.MAX_TAGS],
    metadata_hash: bytes32,
    min_price_wei: uint256,
    min_price_token: uint256,
) -> uint256:
    """
    @notice Register a data set of the caller.
    @param tags What the data are, strictly ascending, at least one.
    @param metadata_hash Keccak-256 of the description that the seller publishes elsewhere.
    @param min_price_wei The data set is for no job that pays less, in ether.
    @param min_price_token The same for a price in the deployment's token, in its smallest unit.
    @return Number of the data set, from 1.
    """
    assert tag_sets._is_valid(tags), "data: tags not ascending"

    dataset_id: uint256 = self.dataset_count + 1
    self.dataset_count = dataset_id
    self.datasets[dataset_id] = Dataset(
        seller=msg.sender,
        tags=tags,
        min_price_wei=min_price_wei,
        min_price_token=min_price_token,
    )
    for tag: bytes32 in tags:
        self.counts[tag] += 1
    log IDataRegistry.DatasetRegistered(
        dataset_id=dataset_id,
        seller=msg.sender,
        tags=tags,
        metadata_hash=metadata_hash,
        min_price_wei=min_price_wei,
        min_price_token=min_price_token,
    )
    return dataset_id


@external
@view
def seller_of(dataset_id: uint256) -> address:
    """
    @notice Who registered a data set.
    @param dataset_id Number of the data set.
    @return Account of the seller; zero if the number is unknown.
    """
    return self.datasets[dataset_id].seller


@external
@view
def has_tags(dataset_id: uint256, tags: DynArray[bytes32, limits.MAX_TAGS]) -> bool:
    """
    @notice Whether a data set carries all of some tags.
    @param dataset_id Number of the data set.
    @param tags Tags asked for, strictly ascending.
    @return True if the data set's tags are a superset of the tags asked for.
    """
    return tag_sets._is_superset(self.datasets[dataset_id].tags, tags)


@external
@view
def min_price_of(dataset_id: uint256, is_token: bool) -> uint256:
    """
    @notice The least price of a job that a data set is for.
    @param dataset_id Number of the data set.
    @param is_token True for a price in the deployment's token, false for ether.
    @return The price; zero if the number is unknown.
    """
    if is_token:
        return self.datasets[dataset_id].min_price_token
    return self.datasets[dataset_id].min_price_wei


@external
@view
def count_of(tags: DynArray[bytes32, limits.MAX_TAGS]) -> uint256:
    """
    @notice How many data sets may carry all of some tags.
    @dev Counted tag by tag, so this is an upper bound that costs one look per tag.
    @param tags Tags asked for.
    @return Number of data sets with the rarest of the tags; zero for no tags.
    """
    if len(tags) == 0:
        return 0
    smallest: uint256 = max_value(uint256)
    for tag: bytes32 in tags:
        smallest = min(smallest, self.counts[tag])
    return smallest
