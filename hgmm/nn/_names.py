"""Keys of `torch.nn.ModuleDict` for node types and relations.

DGL allows dots in type names and any word, ``type`` and ``keys`` included; `ModuleDict` allows neither.
"""

from __future__ import annotations

from hgmm.typing import CanonicalEtype

__all__ = ["node_key", "relation_key"]


def _escape(name: str) -> str:
    return name.replace("%", "%25").replace(".", "%2E").replace(":", "%3A")


def node_key(ntype: str) -> str:
    """Return the key of a node type.

    Examples
    --------
    >>> node_key("v1.2")
    'node:v1%2E2'
    """
    return f"node:{_escape(ntype)}"


def relation_key(canonical_etype: CanonicalEtype) -> str:
    """Return the key of a relation.

    Examples
    --------
    >>> relation_key(("user", "buys", "item"))
    'edge:user:buys:item'
    """
    return "edge:" + ":".join(map(_escape, canonical_etype))
