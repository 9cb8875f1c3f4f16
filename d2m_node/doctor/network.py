"""Peers: can we dial them, and can they dial us?"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from d2m_node.client import PeerView, ReachView
from d2m_node.doctor.check import Check, fail, ok, warn
from d2m_node.settings import NetworkSettings

DIAL_SECONDS: Final = 5.0
FEW_PEERS: Final = 3

_ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/([0-9]{1,5})(/.*)?")
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - told apart, not bound


async def check_network(
    settings: NetworkSettings, peers: Sequence[PeerView] | None, reach: ReachView | None = None
) -> list[Check]:
    """Check the addresses; ``peers`` and ``reach`` are those of a running node."""
    checks = [_check_announced(settings)]
    if peers is None:
        checks.append(await _check_listening(settings))
        checks += await _dial_all(settings.bootstrap)
    else:
        checks += _check_peers(peers)
    if reach is not None and reach.state != "unknown":
        checks.append(_check_reach(reach))
    elif settings.announce is not None and peers is not None:
        checks.append(await _check_reachable(settings.announce))
    return checks


def _check_reach(reach: ReachView) -> Check:
    """Tell what the node's peers found that were asked to connect back."""
    name = "reachability"
    if reach.state == "reachable":
        return ok(name, "peers connect to this node")
    if reach.state == "relayed":
        return ok(name, "peers connect to this node through a relay, which costs speed")
    return warn(name, "peers cannot connect to this node", reach.advice or "see d2m-node status")


def _check_announced(settings: NetworkSettings) -> Check:
    name = "announced address"
    told = settings.announce or settings.listen
    found = _ADDRESS.fullmatch(told)
    key = "network.listen" if settings.announce is None else "network.announce"
    if found is None:
        return fail(name, f"{told} is no /ip4/…/tcp/… address", f"correct {key}")
    if found[2] in _ANYWHERE:
        fix = "set network.announce to the address that others reach this machine by"
        return warn(name, f"{told}: others cannot tell where this machine is", fix)
    return ok(name, told)


async def _check_listening(settings: NetworkSettings) -> Check:
    """Try to listen, as the node will."""
    name = "listening address"
    found = _ADDRESS.fullmatch(settings.listen)
    if found is None:
        return fail(name, f"{settings.listen} is no /ip4/…/tcp/… address", "correct network.listen")
    try:
        listeners = await trio.open_tcp_listeners(int(found[3]), host=found[2])
    except (OSError, OverflowError) as exc:
        fix = "stop what listens there, or set network.listen"
        return fail(name, f"{settings.listen}: {getattr(exc, 'strerror', None) or exc}", fix)
    for listener in listeners:
        await listener.aclose()
    return ok(name, f"{settings.listen} is free")


def _check_peers(peers: Sequence[PeerView]) -> Iterator[Check]:
    name = "peers"
    connected = sum(one.connected for one in peers)
    errors = sorted({one.last_error for one in peers if one.last_error and not one.connected})
    detail = f"{connected} of {len(peers)} connected"
    if errors:
        detail += f"; the others: {errors[0]}"
    if not peers:
        yield warn(name, "none known", "set network.bootstrap, or wait for the registry")
    elif connected == 0:
        yield fail(name, detail, "check the firewall and network.listen; see d2m-node peers")
    elif connected < min(FEW_PEERS, len(peers)):
        yield warn(name, detail, "see d2m-node peers")
    else:
        yield ok(name, detail)


async def _dial_all(addresses: Sequence[str]) -> list[Check]:
    """Dial those that the settings name, all at once."""
    checks: dict[str, Check] = {}

    async def dial(address: str) -> None:
        name = f"peer {address.partition('/p2p/')[0]}"
        failure = await _dial(address)
        fix = "check that it is up, and that no firewall is between"
        checks[address] = ok(name, "answers") if failure is None else warn(name, failure, fix)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(dial, address)
    return [checks[address] for address in addresses]


async def _check_reachable(announced: str) -> Check:
    """Dial ourselves. A router may refuse what it would take from outside: a hint, no proof."""
    name = "reachability"
    failure = await _dial(announced)
    if failure is None:
        return ok(name, f"{announced} answers")
    fix = "open the port in firewall and router, or correct network.announce"
    return warn(name, f"{announced} from here: {failure}", fix)


async def _dial(address: str) -> str | None:
    """Return what keeps a connection from being made; None if it is."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return "no /ip4/…/tcp/… address"
    try:
        with trio.fail_after(DIAL_SECONDS):
            stream = await trio.open_tcp_stream(found[2], int(found[3]))
            await stream.aclose()
    except trio.TooSlowError:
        return f"no answer within {DIAL_SECONDS:g} seconds"
    except (OSError, ExceptionGroup, OverflowError) as exc:
        return getattr(exc, "strerror", None) or str(exc).partition("(")[0].strip()
    return None
