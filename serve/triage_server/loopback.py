"""Whether a host is this machine and no other: one rule for who may listen, be spoken to openly or be asked.

Imports nothing of ours.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine is meant, whatever a resolver would say.

    Args:
        host: an address, without brackets, or a name. No name is resolved: what one means can change after
            it was checked. ``localhost`` alone is believed, as it is written: there are resolvers that ask
            the network for ``localhost.`` and ``x.localhost``.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return False  # Python answers yes for ::ffff:127.0.0.1 from 3.13 on, and no before
    return address.is_loopback
