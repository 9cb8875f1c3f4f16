"""Show a node's roles, and switch one on, off, or let it finish.

    python examples/switch_roles.py NODE/rpc.sock
    python examples/switch_roles.py NODE/rpc.sock on cone --stake 1ether --key my-first-stake
    python examples/switch_roles.py NODE/rpc.sock drain cone
    python examples/switch_roles.py NODE/rpc.sock off buyer

Over TCP, give the node's URL in place of the socket, and --token-file with a token from its folder
`tokens`. A key names one payment: the same key never stakes twice, however often it is tried.
"""

import argparse
from pathlib import Path

from d2m_node.client import (
    DISABLE_ROLE,
    DRAIN_ROLE,
    ENABLE_ROLE,
    LIST_ROLES,
    CallRefused,
    DisableRoleParams,
    EnableRoleParams,
    NodeUnreachable,
    NoParams,
    RoleParams,
    RoleView,
    RpcClient,
    TcpPlace,
)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("node", help="path of its socket, or its URL")
    parser.add_argument("action", choices=["show", "on", "drain", "off"], nargs="?", default="show")
    parser.add_argument("role", choices=["buyer", "seller", "cone"], nargs="?", default="buyer")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--dataset", type=Path, help="of a seller: a dataset.toml")
    parser.add_argument("--stake", help='of a CONE node, like "5ether"')
    parser.add_argument("--key", help="of a CONE node: names this payment")
    return parser.parse_intermixed_args()


def switch(node: RpcClient, wanted: argparse.Namespace) -> list[RoleView]:
    if wanted.action == "on":
        params = EnableRoleParams(
            role=wanted.role,
            dataset=None if wanted.dataset is None else str(wanted.dataset.absolute()),
            stake_wei=wanted.stake,
            idempotency_key=wanted.key,
        )
        return node.call(ENABLE_ROLE, params)
    if wanted.action == "drain":
        return node.call(DRAIN_ROLE, RoleParams(role=wanted.role))
    if wanted.action == "off":
        return node.call(DISABLE_ROLE, DisableRoleParams(role=wanted.role))
    return node.call(LIST_ROLES, NoParams())


def main() -> None:
    wanted = read_arguments()
    is_url = wanted.token_file is not None
    place = TcpPlace(wanted.node, wanted.token_file) if is_url else Path(wanted.node)
    try:
        with RpcClient(place) as node:
            for role in switch(node, wanted):
                print(f"{role.role}: {role.state}")
    except (CallRefused, NodeUnreachable) as refusal:
        raise SystemExit(str(refusal)) from None


if __name__ == "__main__":
    main()
