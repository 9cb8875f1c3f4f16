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


datasets: HashMap[uint256, Dataset]
dataset_count: public(uint256)


@external
def register_dataset(
    tags: DynArray[bytes32, limits.MAX_TAGS], metadata_hash: bytes32
) -> uint256:
    """
    @notice Register a data set of the caller.
    @param tags What the data are, strictly ascending, at least one.
    @param metadata_hash Keccak-256 of the description that the seller publishes elsewhere.
    @return Number of the data set, from 1.
    """
    assert tag_sets._is_valid(tags), "data: tags not ascending"

    dataset_id: uint256 = self.dataset_count + 1
    self.dataset_count = dataset_id
    self.datasets[dataset_id] = Dataset(seller=msg.sender, tags=tags)
    log IDataRegistry.DatasetRegistered(
        dataset_id=dataset_id, seller=msg.sender, tags=tags, metadata_hash=metadata_hash
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
