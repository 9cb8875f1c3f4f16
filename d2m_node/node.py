"""The task tree of a node, and the only module that knows every part.

trio.run
└── run_node
    ├── open_store                  closes last
    │   └── open_watch              health, metrics, word to systemd
    │       └── open_chain          follower, sender
    │           └── open_network    host, gossip, streams
    │               ├── serve_rpc
    │               └── roles       one task per enabled role
    └── signals                     set `stop`
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from d2m_node.address_store import AddressStore
from d2m_node.backup import LOCAL_CHAIN_ID
from d2m_node.chain.adapter import open_chain
from d2m_node.clock import Clock
from d2m_node.errors import UserError
from d2m_node.facts import RunningNode
from d2m_node.keys import open_account
from d2m_node.measures import MeasuredChain
from d2m_node.network.adapter import Libp2pNetwork, open_network
from d2m_node.network.settings import NetworkSettings
from d2m_node.past_jobs import PastJobs
from d2m_node.ports import ChainPort, Library, Ports, SignerPort, TrainerPort
from d2m_node.privacy_ledger import make_policy
from d2m_node.request_file import METRICS
from d2m_node.role_control import RoleOptions
from d2m_node.role_settings import ConeSettings, SellerSettings
from d2m_node.roles.acquaintances import bind_peer, run_acquaintances
from d2m_node.roles.buyer import run_buyer
from d2m_node.roles.cone import run_cone
from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.executor import Executor, HonestExecutor
from d2m_node.roles.handout import ModelDesk
from d2m_node.roles.library import NodeLibrary
from d2m_node.roles.payday import run_payday
from d2m_node.roles.policies import ConePolicy, JobLimits, SellerPolicy
from d2m_node.roles.post import Post
from d2m_node.roles.promises import OpenPromises
from d2m_node.roles.refusals import Refusals
from d2m_node.roles.room import Room
from d2m_node.roles.rooms import Rooms
from d2m_node.roles.runner import RoleRunner, Start, Starter
from d2m_node.roles.seller import run_seller
from d2m_node.rpc.herald import Herald, ToldRefusals
from d2m_node.rpc.methods import RpcContext
from d2m_node.rpc.once import OnceDesk
from d2m_node.rpc.server import serve_rpc
from d2m_node.settings import ChainSettings, Device, NodeSettings, StorageSettings
from d2m_node.storage.collector import make_rules, run_collector
from d2m_node.storage.database import Store, open_store
from d2m_node.training.datasets import LocalDatasets
from d2m_node.training.devices import select_evaluator
from d2m_node.training.runner import open_trainer
from d2m_node.transaction_store import TransactionState, TransactionStore
from d2m_node.watch.service import Watch, open_watch
from d2m_node.watch.sources import Sources
from protocol.types import Address, BlockNumber, JobId

log = structlog.get_logger(__name__)

LAST_BLOCKS: Final = 3
"""So many blocks a node that stops gives to its transactions."""


async def make_honest_executor(device: Device) -> Executor:
    """Evaluate on a GPU if there is one and it may be used; else torch is not imported."""
    return HonestExecutor(await trio.to_thread.run_sync(select_evaluator, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Who trains and who computes, and the adapters behind the ports.

    An ordinary node has only the honest ones.
    """

    open_trainer: Callable[[Device], AbstractAsyncContextManager[TrainerPort]] = open_trainer
    make_executor: Callable[[Device], Awaitable[Executor]] = make_honest_executor
    open_store: Callable[[Path, StorageSettings], AbstractAsyncContextManager[Store]] = open_store
    open_chain: Callable[
        [ChainSettings, SignerPort, TransactionStore, PastJobs],
        AbstractAsyncContextManager[MeasuredChain],
    ] = open_chain
    open_network: Callable[
        [NetworkSettings, Library, AddressStore], AbstractAsyncContextManager[Libp2pNetwork]
    ] = open_network


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What whoever starts the node gives, and wants to hear."""

    password: str | None = None
    """Opens the account; without it the settings' password file does."""
    on_ready: Callable[[Address], None] = lambda _: None
    """Told the account once the RPC takes calls."""

    def tell_ready(self, account: Address) -> None:
        """Say that the node takes calls, in the log too."""
        self.on_ready(account)
        log.info("node_ready", account=account.hex())


LAUNCH: Final = Launch()


async def run_node(
    settings: NodeSettings,
    stop: trio.Event,
    behaviour: Behaviour,
    *,
    launch: Launch = LAUNCH,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the enabled roles until ``stop`` is set or a service fails."""
    signer = await trio.to_thread.run_sync(open_account, settings.keys, launch.password)
    open_rooms: dict[JobId, Room] = {}
    async with (
        behaviour.open_store(settings.data_dir, settings.storage) as store,
        open_watch(settings.watch, store) as watch,
        behaviour.open_chain(settings.chain, signer, store.transactions, store.past) as chain,
        _open_network(behaviour, settings, store, NodeLibrary(store, chain, open_rooms)) as network,
        trio.open_nursery() as services,
    ):
        herald = await Herald.open(store.facts)
        await store.marks.trust_from(chain.state.block_number)
        ports = _gather_ports(chain, network, store, signer, herald)
        clock = Clock(chain)
        services.start_soon(clock.watch)
        _start_services(services, ports, store, settings)
        watch.note_step("binding the peer identity to the account")
        await bind_peer(ports, settings.network.announce or network.listening[0])
        async with trio.open_nursery() as roles:
            lag_blocks = settings.chain.confirmations
            desk = BuyerDesk(ports, settings.roles.buyer.known_bids, lag_blocks=lag_blocks)
            rooms = Rooms(ports, open_rooms, roles)
            timed = replace(behaviour, open_trainer=watch.time_trainings(behaviour.open_trainer))
            starters = _make_starters(ports, rooms, desk, settings, timed)
            memory, promises = (store.journal, herald), OpenPromises(ports, desk)
            runner = RoleRunner(starters, settings.roles.enabled(), memory, promises, roles)
            context = RpcContext(
                ports=ports,
                buyer=desk,
                models=ModelDesk(ports),
                roles=runner,
                stop=stop,
                once=OnceDesk(store.journal),
                herald=herald,
                facts=RunningNode(settings, signer.address, chain, network, store, clock),
            )
            watch.attach(
                Sources(
                    account=signer.address,
                    chain=chain,
                    network=network,
                    store=store,
                    roles=runner.states,
                    calls=context.calls,
                    clock_fault=clock.find_fault,
                    epsilon_budget=settings.roles.seller.privacy.epsilon_budget,
                )
            )
            await services.start(serve_rpc, settings.rpc, context)
            task_status.started()
            launch.tell_ready(signer.address)
            roles.start_soon(_restore_roles, runner, watch, stop)
            await stop.wait()
            watch.note_stopping()
            log.info("node_stopping", grace_seconds=settings.shutdown_grace_seconds)
            await runner.stop()
            await desk.wait_idle()
            roles.cancel_scope.cancel()
        await _settle_transactions(chain, store)
        services.cancel_scope.cancel()
    log.info("node_stopped")


def _gather_ports(
    chain: ChainPort, network: Libp2pNetwork, store: Store, signer: SignerPort, herald: Herald
) -> Ports:
    return Ports(
        chain=chain,
        network=network,
        store=store,
        signer=signer,
        datasets=LocalDatasets(_find_data_folder()),
        herald=herald,
        seal=network.seal,
    )


def _start_services(
    services: trio.Nursery, ports: Ports, store: Store, settings: NodeSettings
) -> None:
    """Start what a node does whatever its roles are."""
    services.start_soon(run_acquaintances, ports)
    services.start_soon(run_payday, ports)
    services.start_soon(run_collector, store, ports.chain, make_rules(settings))


def _find_data_folder() -> Path | None:
    """Return where shared data files are, if the operator said so."""
    folder = os.environ.get("D2M_DATA")
    return Path(folder) if folder else None


@asynccontextmanager
async def _open_network(
    behaviour: Behaviour, settings: NodeSettings, store: Store, library: Library
) -> AsyncIterator[Libp2pNetwork]:
    """Join the network with sequence numbers and addresses that outlive this run."""
    wanted = _network_settings(settings, await store.marks.reserve_sequence())
    async with behaviour.open_network(wanted, library, store.addresses) as network:
        yield network


def _network_settings(settings: NodeSettings, first_sequence: int) -> NetworkSettings:
    """Return what the network adapter needs of the settings."""
    return NetworkSettings(
        identity_path=settings.data_dir / "peer.key",
        partial_folder=settings.data_dir / "partials",
        listen=settings.network.listen,
        bootstrap=tuple(settings.network.bootstrap),
        announce=settings.network.announce,
        upload_bytes_per_second=settings.network.upload_bytes_per_second,
        max_connections=settings.network.max_connections,
        peers_target=settings.network.peers_target,
        dht=settings.network.dht,
        relay=settings.network.relay,
        lan=settings.network.lan,
        lan_interfaces=settings.network.lan_interfaces,
        dial_private=_may_dial_private(settings),
        deny=settings.network.deny,
        first_sequence=first_sequence,
    )


def _may_dial_private(settings: NodeSettings) -> bool:
    wanted = settings.network.dial_private
    return settings.chain.chain_id == LOCAL_CHAIN_ID if wanted is None else wanted


def _make_starters(
    ports: Ports, rooms: Rooms, desk: BuyerDesk, settings: NodeSettings, behaviour: Behaviour
) -> dict[str, Starter]:
    def post(start: Start) -> Post:
        kept = ToldRefusals(ports.store.refusals, ports.herald)
        refusals = Refusals(start.shift.role, kept)
        return Post(ports=ports, rooms=rooms, shift=start.shift, refusals=refusals)

    async def buyer(start: Start, task_status: trio.TaskStatus[None]) -> None:
        await run_buyer(post(start), desk, task_status=task_status)

    async def seller(start: Start, task_status: trio.TaskStatus[None]) -> None:
        policy = _make_seller_policy(settings, start.options)
        async with behaviour.open_trainer(settings.device) as trainer:
            await run_seller(post(start), policy, trainer, task_status=task_status)

    async def cone(start: Start, task_status: trio.TaskStatus[None]) -> None:
        policy = _make_cone_policy(settings, start.options)
        executor = await behaviour.make_executor(settings.device)
        await run_cone(
            post(start),
            policy,
            executor,
            payment_key=start.options.payment_key,
            task_status=task_status,
        )

    return {"buyer": buyer, "seller": seller, "cone": cone}


def _make_seller_policy(settings: NodeSettings, options: RoleOptions) -> SellerPolicy:
    wanted = settings.roles.seller
    dataset = options.dataset or wanted.dataset
    if dataset is None:
        raise UserError("roles.seller.dataset: a seller needs one; name a dataset.toml")
    return SellerPolicy(
        dataset_path=str(dataset),
        tags=wanted.tags,
        metrics=frozenset(METRICS[name] for name in wanted.metrics),
        privacy=make_policy(wanted.privacy),
        limits=_make_limits(wanted, settings),
    )


def _make_cone_policy(settings: NodeSettings, options: RoleOptions) -> ConePolicy:
    wanted = settings.roles.cone
    stake_wei = options.stake_wei or wanted.stake_wei
    if stake_wei == 0:
        raise UserError('roles.cone.stake_wei: a CONE node needs a stake, like "5ether"')
    return ConePolicy(
        stake_wei=stake_wei,
        job_stake_min_wei=wanted.job_stake_min_wei,
        job_stake_max_wei=wanted.job_stake_max_wei,
        model_parameters_max=wanted.model_parameters_max,
        validation_samples_max=wanted.validation_samples_max,
        limits=_make_limits(wanted, settings),
    )


def _make_limits(wanted: SellerSettings | ConeSettings, settings: NodeSettings) -> JobLimits:
    return JobLimits(
        jobs_max=wanted.jobs_max,
        min_price_wei=wanted.min_price_wei,
        min_price_token=wanted.min_price_token,
        least_window_blocks=wanted.window_blocks_min,
        lag_blocks=settings.chain.confirmations,
    )


async def _restore_roles(runner: RoleRunner, watch: Watch, stop: trio.Event) -> None:
    watch.note_step("the roles")
    await runner.restore()
    if not stop.is_set():
        watch.note_started()


async def _settle_transactions(chain: ChainPort, store: Store) -> None:
    """Give what is signed a few blocks to be mined; what is not goes on at the next start."""
    last_block = chain.state.block_number + LAST_BLOCKS
    while chain.state.block_number < last_block:
        watched = await store.transactions.load_watched()
        unmined = sum(one.state is TransactionState.OPEN for one in watched)
        if unmined == 0:
            return
        log.info("transactions_unmined", count=unmined)
        await chain.wait_block(BlockNumber(chain.state.block_number + 1))


async def _watch_signals(stop: trio.Event) -> None:
    """The first SIGTERM or SIGINT stops the node in order; a second SIGINT ends it at once."""
    is_interrupted = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if number == signal.SIGINT:
                if is_interrupted:
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                    signal.raise_signal(signal.SIGINT)
                is_interrupted = True
            stop.set()


async def run_until_stopped(
    settings: NodeSettings, behaviour: Behaviour, launch: Launch = LAUNCH
) -> None:
    """Run a node until a signal or the operator stops it, then for at most the grace time."""
    stop, ready = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stop)
        with trio.CancelScope() as scope:
            nursery.start_soon(_cut_off, stop, ready, settings.shutdown_grace_seconds, scope)
            async with trio.open_nursery() as running:
                await running.start(partial(run_node, settings, stop, behaviour, launch=launch))
                ready.set()
        nursery.cancel_scope.cancel()


async def _cut_off(
    stop: trio.Event, ready: trio.Event, grace_seconds: float, scope: trio.CancelScope
) -> None:
    """Cancel the node when its time is over; at once if it has not even started."""
    await stop.wait()
    if ready.is_set():
        await trio.sleep(grace_seconds)
        log.warning("node_cut_off", grace_seconds=grace_seconds)
    scope.cancel()


def main(
    settings: NodeSettings, behaviour: Behaviour | None = None, *, launch: Launch = LAUNCH
) -> None:
    """Run a node in this process. Raises FatalError, UserError, in groups too."""
    trio.run(run_until_stopped, settings, behaviour or Behaviour(), launch)
