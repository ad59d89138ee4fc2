"""What graph convolution, GraphSAGE and graph attention share: matrices by modality and relation, and self-loops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, unknown_name
from hgmm.nn._modality_linear import ModalityLinear
from hgmm.nn._names import node_key, relation_key
from hgmm.nn._relations import RelationConv
from hgmm.nn.functional import destination_rows
from hgmm.typing import CanonicalEtype, NodeDict

__all__ = ["ModalityConv"]

REDUCES = ("mean", "sum")


class ModalityConv(RelationConv, ABC):
    """Messages by relation, joined over relations, and a node's own state; abstract.

    A subclass says in `_message` what arrives over one relation.
    """

    tied: ClassVar[bool] = True
    """Whether a self-loop is an edge of the relation, where exactly one leads into a type and it starts there."""

    def __init__(
        self,
        ntypes: Sequence[str],
        canonical_etypes: Sequence[CanonicalEtype],
        *,
        num_modalities: int,
        in_size: int,
        out_size: int,
        relation_reduce: str = "mean",
    ) -> None:
        super().__init__(ntypes, canonical_etypes, num_modalities=num_modalities)
        where = type(self).__name__
        for name, size in (("in_size", in_size), ("out_size", out_size)):
            if size < 1:
                raise ConfigError(f"{where}, {name}: must be at least 1, got {size}")
        if relation_reduce not in REDUCES:
            raise ConfigError(f"{where}, relation_reduce: {unknown_name('relation_reduce', relation_reduce, REDUCES)}")
        self.in_size = in_size
        self.out_size = out_size
        self.relation_reduce = relation_reduce
        self.loops = self._loops() if self.tied else {}
        self.matrices = nn.ModuleDict()
        for etype in self.canonical_etypes:
            self.matrices[relation_key(etype)] = ModalityLinear(num_modalities, in_size, out_size, bias=False)
        for ntype in self.ntypes:
            if ntype not in self.loops:
                self.matrices[node_key(ntype)] = ModalityLinear(num_modalities, in_size, out_size, bias=False)
        self.bias = nn.ParameterDict(
            {node_key(ntype): nn.Parameter(torch.zeros(num_modalities, out_size)) for ntype in self.ntypes}
        )

    def _loops(self) -> dict[str, CanonicalEtype]:
        """Return the relation that holds the self-loops of a type, for the types that have such a one."""
        incoming = {ntype: [e for e in self.canonical_etypes if e[2] == ntype] for ntype in self.ntypes}
        return {ntype: found[0] for ntype, found in incoming.items() if len(found) == 1 and found[0][0] == ntype}

    def _matrix(self, key: str) -> ModalityLinear:
        return cast(ModalityLinear, self.matrices[key])

    @abstractmethod
    def _message(
        self, graph: Any, etype: CanonicalEtype, x: Tensor, own: Tensor, present: Tensor | None, degrees: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return ``(N_dst, M, out_size)`` from `x` (N_src, M, in_size), and which of it there is, bool (N_dst, M).

        Rows of `x` and `own` (N_dst, M, in_size) that are not present are zero. `degrees` (N_src,) is for GraphConv.
        """

    def extra_repr(self) -> str:
        """Show the sizes in the module's repr."""
        return f"num_modalities={self.num_modalities}, in_size={self.in_size}, out_size={self.out_size}"

    def forward(
        self, graph: Any, h: NodeDict, present: NodeDict | None = None, *, ntypes: Collection[str] | None = None
    ) -> tuple[NodeDict, NodeDict | None]:
        """Map node states to the next layer's.

        Parameters
        ----------
        graph : dgl.DGLGraph
            A graph or a block, with some or all of the declared node types and relations. Self-loops are the layer's
            own: give it a graph without.
        h : dict of str to Tensor
            ``(N, M, in_size)`` by node type; on a block the source rows.
        present : dict of str to Tensor, optional
            ``(N, M)`` bool by node type: True where the node has the modality. The rows of `h` that are not present
            are not read, whatever they hold. Default: every node has every modality.
        ntypes : collection of str, optional
            Update these node types only; the result has no others. Default: all.

        Returns
        -------
        h : dict of str to Tensor
            ``(N, M, out_size)``; on a block the destination rows.
        present : dict of str to Tensor, or None
            What each node now has: what it had, or some in-neighbour had. None if None was given.

        Raises
        ------
        SchemaError
            The graph has a node type or a relation that was not declared.
        ShapeError
            A tensor of `h` or `present` is missing or has the wrong shape.
        """
        return self._propagate(graph, h, present, ntypes, None)

    def _propagate(
        self,
        graph: Any,
        h: NodeDict,
        present: NodeDict | None,
        ntypes: Collection[str] | None,
        degrees: Mapping[CanonicalEtype, Tensor] | None,
    ) -> tuple[NodeDict, NodeDict | None]:
        wanted, etypes = self._active(graph, ntypes)
        read = dict.fromkeys([*wanted, *(e[0] for e in etypes)])
        self._check_rows(graph, read, h, present, width=self.in_size)
        masks: Mapping[str, Tensor | None] = dict.fromkeys(read) if present is None else present
        state = {t: _without_absent(h[t], masks[t]) for t in read}
        out: NodeDict = {}
        arrived: NodeDict = {}
        for ntype in wanted:
            own = destination_rows(graph, ntype, state[ntype])
            mask = masks[ntype]
            has = (
                own.new_ones(own.shape[:2], dtype=torch.bool) if mask is None else destination_rows(graph, ntype, mask)
            )
            messages = [
                self._message(graph, e, state[e[0]], own, masks[e[0]], None if degrees is None else degrees[e])
                for e in etypes
                if e[2] == ntype
            ]
            out[ntype] = self._join(ntype, own, has, messages, looped=self.loops.get(ntype) in etypes)
            arrived[ntype] = torch.stack([has, *(reached.expand_as(has) for _, reached in messages)]).any(0)
        return out, None if present is None else arrived

    def _join(
        self, ntype: str, own: Tensor, has: Tensor, messages: Sequence[tuple[Tensor, Tensor]], *, looped: bool
    ) -> Tensor:
        """Join what arrives over the relations with the node's own state, unless its loop brought that already."""
        values = [value for value, _ in messages]
        counted = [reached.expand_as(has) for _, reached in messages]
        if not looped:
            loop = self.loops.get(ntype)
            values.append(self._matrix(node_key(ntype) if loop is None else relation_key(loop))(own))
            counted.append(has)
        total = torch.stack(values).sum(0)
        if self.relation_reduce == "mean":
            total = total / torch.stack(counted).sum(0).clamp(min=1).unsqueeze(-1)
        result: Tensor = total + self.bias[node_key(ntype)]
        return result


def _without_absent(x: Tensor, present: Tensor | None) -> Tensor:
    return x if present is None else x.masked_fill(~present.unsqueeze(-1), 0)
