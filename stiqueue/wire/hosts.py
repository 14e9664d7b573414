"""What a host's name says about who reaches it, and how it is written beside a port."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def host_and_port(host: str, port: int) -> str:
    """Return ``host:port``, for IPv6 with brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
