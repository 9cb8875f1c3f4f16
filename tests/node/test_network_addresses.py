"""Addresses of strangers: what is read, and what is never dialled."""

from ipaddress import ip_address

import pytest
import trio

from d2m_node.network.addresses import Scope, explain_refusal, parse_endpoint, resolve

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/93.184.216.34/tcp/9393",
        "/ip6/2606:2800:220:1::1/tcp/1",
        "/dns/node.example/tcp/65535",
        "/dns4/node.example/tcp/9393",
    ],
)
def test_an_address_over_tcp_is_read(address: str) -> None:
    endpoint = parse_endpoint(address)
    assert f"/{endpoint.protocol}/{endpoint.host}/tcp/{endpoint.port}" == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nonsense",
        "/ip4/93.184.216.34",
        "/ip4/93.184.216.34/udp/9393",
        "/ip4/93.184.216.34/tcp/0",
        "/ip4/93.184.216.34/tcp/65536",
        "/ip4/93.184.216.34/tcp/9393/",
        "/ip4/93.184.216.34/tcp/9393/ws",
        "/ip4/2606::1/tcp/9393",
        "/ip6/1.2.3.4/tcp/9393",
        "/ip4/node.example/tcp/9393",
        "/ip4/1.2.3.4/tcp/9393\n",
        "/dns4/a b/tcp/9393",
        "/unix/%2Ftmp%2Fsocket",
        "/dns4/" + "a" * 300 + "/tcp/9393",
    ],
)
def test_another_text_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_endpoint(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "224.0.0.251", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"]
)
def test_what_is_no_machine_is_never_dialled(address: str, scope: Scope) -> None:
    assert explain_refusal(ip_address(address), scope) is not None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_this_machine_is_dialled_only_if_the_operator_says_so(address: str) -> None:
    for scope in (Scope.PUBLIC, Scope.PRIVATE):
        refusal = explain_refusal(ip_address(address), scope)
        assert refusal is not None
        assert "network.dial_private" in refusal
    assert explain_refusal(ip_address(address), Scope.ANY) is None


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1"),
        *("fe80::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"),
    ],
)
def test_a_private_network_is_dialled_for_those_on_it(address: str) -> None:
    refusal = explain_refusal(ip_address(address), Scope.PUBLIC)
    assert refusal is not None
    assert "network.dial_private" in refusal
    assert explain_refusal(ip_address(address), Scope.PRIVATE) is None


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_a_public_address_is_dialled_for_anybody(address: str) -> None:
    assert explain_refusal(ip_address(address), Scope.PUBLIC) is None


async def test_a_name_is_judged_by_what_it_stands_for() -> None:
    endpoint = parse_endpoint("/dns4/localhost/tcp/9393")
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 is this machine"):
        await resolve(endpoint, Scope.PUBLIC)
    assert await resolve(endpoint, Scope.ANY) == ["/ip4/127.0.0.1/tcp/9393"]


async def test_of_a_name_with_many_addresses_few_are_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(*_: object) -> list[tuple[object, ...]]:
        found = ["127.0.0.1", *(f"93.184.216.{number}" for number in range(200))]
        return [(2, 1, 6, "", (one, 9393)) for one in found]

    monkeypatch.setattr(trio.socket, "getaddrinfo", answer)
    found = await resolve(parse_endpoint("/dns/node.example/tcp/9393"), Scope.PUBLIC)
    assert found == ["/ip4/93.184.216.0/tcp/9393", "/ip4/93.184.216.1/tcp/9393"]


async def test_a_name_that_is_not_found_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^the name no-such-host\.invalid is not found: ."):
        await resolve(parse_endpoint("/dns/no-such-host.invalid/tcp/1"), Scope.PUBLIC)
