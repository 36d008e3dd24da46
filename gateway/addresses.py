"""Decides which IP addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

# Networks whose addresses end in an IPv4 address: compatible, mapped, and NAT64.
IPV4_INSIDE = (IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215: inside one network, in any format


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet, and not of a host's or an operator's own net."""
    if isinstance(address, IPv6Address):
        inner = address.sixtofour
        if any(address in network for network in IPV4_INSIDE):
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address in LOCAL_NAT64:
            return False
    return address.is_global and not address.is_multicast
