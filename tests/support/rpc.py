"""A node's RPC over a real socket, with the node behind it faked."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio

from d2m_node.errors import UserError
from d2m_node.ports import JournalPort, PeerStatus, Ports
from d2m_node.request_file import RequestFile
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.rpc.methods import RpcContext
from d2m_node.rpc.once import OnceDesk
from d2m_node.rpc.server import serve_rpc
from d2m_node.settings import RpcSettings
from protocol.hashing import Domain
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.types import Address, JobId
from tests.support.market import Journal, Store
from tests.support.params import PARAMS

ACCOUNT = Address(b"\x0a" * 20)
DOMAIN = Domain(31337, Address(b"\x0b" * 20))


@dataclass
class FakeChain:
    state: MarketState
    domain: Domain = DOMAIN
    params: ProtocolParams = PARAMS


@dataclass
class FakeNetwork:
    peer_id: bytes = b"\x01\x02"
    known: tuple[PeerStatus, ...] = ()

    def peers(self) -> tuple[PeerStatus, ...]:
        return self.known


@dataclass
class FakeSigner:
    address: Address = ACCOUNT


@dataclass
class FakeDesk:
    """Takes requests as they come; ``failure`` is raised instead, if set."""

    submitted: dict[str, RequestFile] = field(default_factory=dict)
    models: dict[JobId, bytes] = field(default_factory=dict)
    failure: Exception | None = None

    async def submit(self, request: RequestFile, *, idempotency_key: str) -> JobId:
        if self.failure is not None:
            raise self.failure
        self.submitted[idempotency_key] = request
        return JobId(len(self.submitted))

    async def model(self, job_id: JobId) -> bytes | None:
        return self.models.get(job_id)


@dataclass
class FakeRoles:
    on: dict[str, RoleOptions] = field(default_factory=dict)

    draining: set[str] = field(default_factory=set)

    def states(self) -> dict[str, RoleState]:
        return {name: self._state_of(name) for name in ("buyer", "seller", "cone")}

    def _state_of(self, name: str) -> RoleState:
        if name not in self.on:
            return RoleState.OFF
        return RoleState.DRAINING if name in self.draining else RoleState.ON

    async def enable(self, name: str, options: RoleOptions) -> None:
        if name == "seller" and options.dataset is None:
            # As a nursery would hand it over.
            raise ExceptionGroup("role", [UserError("roles.seller.dataset: not set")])
        self.on[name] = options
        self.draining.discard(name)

    async def drain(self, name: str) -> None:
        if name not in self.on:
            raise UserError(f"the {name} role is off: it has nothing to drain")
        self.draining.add(name)

    async def disable(self, name: str) -> None:
        self.on.pop(name, None)


@dataclass
class FakeNode:
    """What stands behind the socket."""

    chain: FakeChain = field(default_factory=lambda: FakeChain(MarketState()))
    network: FakeNetwork = field(default_factory=FakeNetwork)
    desk: FakeDesk = field(default_factory=FakeDesk)
    roles: FakeRoles = field(default_factory=FakeRoles)
    stop: trio.Event = field(default_factory=trio.Event)
    journal: JournalPort = field(default_factory=Journal)
    store: Store = field(default_factory=Store)

    def context(self) -> RpcContext:
        # Methods touch nothing else of the ports.
        ports = Ports(
            chain=cast(Any, self.chain),
            network=cast(Any, self.network),
            store=cast(Any, self.store),
            signer=cast(Any, FakeSigner()),
            datasets=cast(Any, None),
        )
        return RpcContext(
            ports=ports,
            buyer=self.desk,
            roles=self.roles,
            stop=self.stop,
            once=OnceDesk(self.journal),
        )


@asynccontextmanager
async def serve_fake_node(
    node: FakeNode, socket: Path, **settings: Any
) -> AsyncGenerator[int | None, None]:
    """Yield the port of the TCP listener, if the settings ask for one."""
    async with trio.open_nursery() as nursery:
        rpc = RpcSettings(socket=socket, tokens=socket.parent / "tokens", **settings)
        port = await nursery.start(serve_rpc, rpc, node.context())
        yield port
        nursery.cancel_scope.cancel()
