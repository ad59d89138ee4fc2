from __future__ import annotations

import pytest
from torch import nn

from hgmm.nn._names import node_key, relation_key

AWKWARD = ("v1.2", "type", "keys", "", "a:b", "a%3Ab", "naïve name", "node:x")


@pytest.mark.parametrize("name", AWKWARD)
def test_every_name_can_be_a_key(name: str) -> None:
    modules = nn.ModuleDict({node_key(name): nn.Identity()})
    assert isinstance(modules[node_key(name)], nn.Identity)


def test_different_names_have_different_keys() -> None:
    assert len({node_key(name) for name in AWKWARD}) == len(AWKWARD)
    relations = [("a", "b:c", "d"), ("a:b", "c", "d"), ("a", "b", "c:d"), ("a", "b", "c"), ("a.b", "c", "d")]
    assert len({relation_key(etype) for etype in relations}) == len(relations)
