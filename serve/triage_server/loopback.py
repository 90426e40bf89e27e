"""Whether a host is this machine: one rule for where to listen, plain http, and whom to ask for a key.

Imports nothing of ours.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host certainly means this machine, whatever a resolver would say.

    Args:
        host: an address without brackets, or a name. Names are not resolved, because what one means can
            change after the check. Only ``localhost``, exactly so, is accepted: some resolvers ask the
            network for ``localhost.`` and ``x.localhost``.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return False  # Python says yes to ::ffff:127.0.0.1 from 3.13 on, and no before
    return address.is_loopback
