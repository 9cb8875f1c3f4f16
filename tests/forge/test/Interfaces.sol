// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

struct Params {
    uint256 cone_bps;
    uint256 floor_bps;
    uint256 bid_forfeit_bps;
    uint256 slash_wrong_bps;
    uint256 slash_noreveal_bps;
    uint256 min_stake_wei;
    uint256 unbonding_blocks;
    uint256 max_window_blocks;
    uint256 seed_delay_blocks;
    uint256 retries;
    uint256 finals_max;
    uint256 audit_bps;
    uint256 sweep_blocks;
    uint256 refund_cap_bps;
    address token;
}

struct JobTerms {
    uint256 rounds_max;
    int256 target;
    uint256 metric;
    uint256 sellers_per_round;
    uint256 lead;
    uint256 first_set_size;
    uint256 growth_numerator;
    uint256 growth_denominator;
    uint256 sellers_min;
    uint256 sellers_max;
    uint256 cones_min;
    uint256 cones_max;
    uint256 stake_wei;
    uint256 seller_deposit_wei;
    uint256 enrolment_blocks;
    uint256 validation_blocks;
    uint256 update_commit_blocks;
    uint256 update_open_blocks;
    uint256 availability_blocks;
    uint256 vote_commit_blocks;
    uint256 vote_open_blocks;
    uint256 decision_blocks;
    uint256 appeal_blocks;
    uint256 header_blocks;
}

struct Permit {
    uint256 value;
    uint256 deadline;
    uint8 v;
    bytes32 r;
    bytes32 s;
}

struct Course {
    bytes32 terms_hash;
    bytes32 parent;
    bytes32 decision;
    bytes32 digest;
    bytes32 model_digest;
    bytes32 credit_root;
    uint256 utilities;
    uint256 progress;
    uint256 decided_ballot;
    uint256 resumed_ballot;
    uint256 slashes;
    uint256[4] participation;
    uint256[8] refunds;
}

struct TrainingResult {
    bytes32 terms_hash;
    uint256 outcome;
    uint256 rounds_done;
    int256 initial_utility;
    int256 last_utility;
    bool is_final_evaluated;
    bytes32 model_digest;
    bytes32 credit_root;
    uint256 credit_sum;
    uint256 final_block;
    uint256[] participation;
    uint256[] refunds_wei;
}

struct Contracts {
    address peer_registry;
    address data_registry;
    address stake_pool;
    address seller_deposits;
    address enrolment;
    address statements;
    address ballots;
    address rounds;
    address appeals;
    address settlement;
}

struct JobRecord {
    address buyer;
    uint256 price_wei;
    address currency;
    bytes32 terms_hash;
    bytes32 request_hash;
    bytes32 body_hash;
    uint256 opened_block;
    uint256 enrolment_end;
    uint256 status;
}

struct ConeApplication {
    address account;
    bytes32 ticket_root;
}

struct CreditLeaf {
    address payee;
    uint256 v;
}

struct Holding {
    uint256 free_wei;
    uint256 since_block;
    uint256 unbonding_wei;
    uint256 release_block;
    uint256 reward_wei;
}

struct Lock {
    uint256 original_wei;
    uint256 remaining_wei;
}

interface IMarket {
    function open_auction(
        uint256 auction,
        bytes32[] calldata tags,
        uint256 mode,
        address currency,
        uint256 deposit_wei,
        uint256 reserve_wei,
        uint256 commit_blocks,
        uint256 reveal_blocks,
        bytes32 commitment,
        uint256 bond_wei,
        Permit[] calldata permits
    ) external payable returns (uint256);
    function commit_bid(
        uint256 auction,
        bytes32 commitment,
        uint256 bond_wei,
        Permit[] calldata permits
    ) external payable;
    function reveal_bid(
        uint256 auction,
        uint256 amount_wei,
        JobTerms calldata terms,
        bytes32 body_hash,
        bytes32 salt
    ) external;
    function open_clear_auction(
        uint256 auction,
        bytes32[] calldata tags,
        address currency,
        uint256 reserve_wei,
        uint256 bid_blocks,
        uint256 amount_wei,
        JobTerms calldata terms,
        bytes32 body_hash,
        Permit[] calldata permits
    ) external payable returns (uint256);
    function bid(
        uint256 auction,
        uint256 amount_wei,
        JobTerms calldata terms,
        bytes32 body_hash,
        Permit[] calldata permits
    ) external payable;
    function close_auction(uint256 auction) external;
    function reclaim_bid(uint256 auction) external;
    function reclaim_escrow(uint256 job) external;
    function start_job(uint256 job) external;
    function cancel_job(uint256 job) external;
    function release_escrow(uint256 job) external;
    function job_of(uint256 job) external view returns (JobRecord memory);
    function escrow_of(uint256 job) external view returns (uint256);
}

interface IDataRegistry {
    function register_dataset(
        bytes32[] calldata tags,
        bytes32 metadata_hash,
        uint256 min_price_wei,
        uint256 min_price_token
    ) external returns (uint256);
}

interface IEnrolment {
    function enrol_seller(
        uint256 job,
        JobTerms calldata terms,
        uint256 dataset_id,
        Permit[] calldata permits
    ) external payable;
    function enrol_cone(uint256 job, JobTerms calldata terms, bytes32 ticket_root) external;
    function close_enrolment(
        uint256 job,
        JobTerms calldata terms,
        address[] calldata sellers,
        ConeApplication[] calldata cones,
        bytes calldata header
    ) external;
}

interface IStakePool {
    function deposit() external payable;
    function request_unbond(uint256 amount_wei) external;
    function withdraw() external;
    function lock(uint256 job, address account, uint256 amount_wei) external;
    function slash(
        uint256 job,
        address[] calldata accounts,
        uint256 reason,
        address[] calldata beneficiaries
    ) external;
    function release(uint256 job, address account) external;
    function holding_of(address account) external view returns (Holding memory);
    function lock_of(uint256 job, address account) external view returns (Lock memory);
}

interface ISellerDeposits {
    function deposit(
        uint256 job,
        address seller,
        address currency,
        uint256 amount_wei,
        Permit[] calldata permits
    ) external payable;
    function forfeit(uint256 job, address[] calldata sellers) external;
    function reclaim(uint256 job) external;
    function deposit_of(uint256 job, address seller) external view returns (uint256);
}

interface ISettlement {
    function settle(
        uint256 job,
        JobTerms calldata terms,
        Course calldata course,
        CreditLeaf[] calldata leaves
    ) external;
    function claim(address currency) external;
    function claim_cone_share(uint256 job, uint256 index) external;
    function claim_seller_share(
        uint256 job,
        uint256 index,
        uint256 v,
        bytes32[] calldata proof
    ) external;
    function sweep(address payee, address currency) external;
    function sweep_shares(uint256 job) external;
    function claimable(address currency, address account) external view returns (uint256);
    function is_settled(uint256 job) external view returns (bool);
}
