"""Interactions: how head, relation and tail vectors make the score of a triple.

Each rests on two queries and one measure: what a tail is compared with, given head and relation, and what a head is
compared with, given relation and tail. So one triple, all candidates and candidates that were drawn are scored by the
same formula.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, unknown_name
from hgmm.kg.measures import Measure, measure, measure_all, measure_gathered

__all__ = ["INTERACTIONS", "ComplEx", "DistMult", "Interaction", "RotatE", "TransE", "get_interaction"]


class Interaction(ABC):
    """What an interaction is: two queries and a measure.

    A higher score is more plausible: the inner product, or minus the distance.

    Attributes
    ----------
    kind : int or str
        A measure of `hgmm.kg.measures`.
    normalized : bool
        Whether vectors, the relations' included, are used at length 1 unless told otherwise.
    complex_vectors : bool
        Whether vectors, the relations' included, are complex numbers, all real parts before all imaginary parts.
    """

    kind: Measure
    normalized = False
    complex_vectors = False

    @abstractmethod
    def tail_query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return what tails are compared with: ``(*, D)`` from heads ``(*, D)`` and relations ``(*, D_relation)``."""

    @abstractmethod
    def head_query(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return what heads are compared with: ``(*, D)`` from relations ``(*, D_relation)`` and tails ``(*, D)``."""

    def relation_size(self, size: int) -> int:
        """Return the length of a relation's vector beside entity vectors of length `size`.

        Raises
        ------
        ConfigError
            `size` is odd and the vectors are complex, or it is below 1.
        """
        if size < 1:
            raise ConfigError(f"{type(self).__name__}, size: must be at least 1, got {size}")
        return size

    def init_relation_(self, relation: Tensor) -> None:
        """Draw the first values of the relations' vectors ``(R, D_relation)`` in place."""
        nn.init.xavier_uniform_(relation)

    def score(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Score triples.

        Parameters
        ----------
        head, relation, tail : Tensor
            ``(*, D)``, ``(*, D_relation)``, ``(*, D)``, broadcast.

        Returns
        -------
        Tensor
            ``(*)``; higher is more plausible.
        """
        return self._signed(measure(self.tail_query(head, relation), tail, self.kind))

    def score_tails(self, head: Tensor, relation: Tensor, candidates: Tensor) -> Tensor:
        """Score every candidate as the tail.

        Parameters
        ----------
        head, relation : Tensor
            ``(Q, D)`` and ``(Q, D_relation)``.
        candidates : Tensor
            ``(E, D)``.

        Returns
        -------
        Tensor
            ``(Q, E)``; see `hgmm.kg.measures.measure_all` for the memory.
        """
        return self.score_all(self.tail_query(head, relation), candidates)

    def score_heads(self, relation: Tensor, tail: Tensor, candidates: Tensor) -> Tensor:
        """Score every candidate as the head; as `score_tails`."""
        return self.score_all(self.head_query(relation, tail), candidates)

    def score_all(self, query: Tensor, candidates: Tensor) -> Tensor:
        """Score every candidate ``(E, D)`` for queries ``(Q, D)`` that were made before: ``(Q, E)``."""
        return self._signed(measure_all(query, candidates, self.kind))

    def score_gathered(
        self,
        query: Tensor,
        table: Tensor,
        entity: Tensor,
        side: Tensor,
        pairs: Tensor,
        *,
        shared: Tensor | None = None,
    ) -> Tensor:
        """Score the rows of a table that were drawn: ``(B, K, P)``.

        Parameters
        ----------
        query, table, entity, side, pairs, shared : Tensor
            As `hgmm.kg.measures.measure_gathered` takes them.
        """
        return self._signed(measure_gathered(query, table, entity, side, pairs, self.kind, shared=shared))

    def _signed(self, value: Tensor) -> Tensor:
        return value if self.kind == "dot" else -value


class TransE(Interaction):
    r"""Relations as translations: ``-|h + r - t|`` in the L1 or the L2 norm.

    Parameters
    ----------
    norm : int, optional
        1 or 2.

    Raises
    ------
    ConfigError
        `norm` is another number.

    References
    ----------
    Bordes et al., Translating Embeddings for Modeling Multi-relational Data, NeurIPS 2013; the L2
    distance is not squared here. Vectors of length 1 for relations too: the released code of MANS.

    Examples
    --------
    >>> import torch
    >>> TransE().score(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0]))
    tensor(-2.)
    """

    normalized = True

    def __init__(self, norm: int = 1) -> None:
        if norm == 1:
            self.kind = 1
        elif norm == 2:
            self.kind = 2
        else:
            raise ConfigError(f"TransE, norm: must be 1 or 2, got {norm}")

    def tail_query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return ``h + r``."""
        return head + relation

    def head_query(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return ``t - r``."""
        return tail - relation


class DistMult(Interaction):
    r"""Diagonal bilinear form: ``sum_d h_d r_d t_d``.

    References
    ----------
    Yang et al., Embedding Entities and Relations for Learning and Inference in Knowledge Bases, ICLR 2015:
    the bilinear form with a diagonal matrix.

    Examples
    --------
    >>> import torch
    >>> DistMult().score(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor(5.)
    """

    kind = "dot"

    def tail_query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return ``h * r``."""
        return head * relation

    def head_query(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return ``r * t``."""
        return relation * tail


class ComplEx(Interaction):
    r"""Diagonal form on complex vectors: ``Re sum_d h_d r_d conj(t_d)``.

    References
    ----------
    Trouillon et al., Complex Embeddings for Simple Link Prediction, ICML 2016, equations 9 to 11.

    Examples
    --------
    >>> import torch
    >>> i = torch.tensor([0.0, 1.0])
    >>> ComplEx().score(i, i, torch.tensor([1.0, 0.0]))
    tensor(-1.)
    """

    kind = "dot"
    complex_vectors = True

    def relation_size(self, size: int) -> int:
        """Return `size`, which must be even."""
        return 2 * _complex_size(self, size)

    def tail_query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return ``h r``, whose real product with t is the score."""
        return _times(head, *relation.chunk(2, -1))

    def head_query(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return ``conj(r) t``."""
        real, imaginary = relation.chunk(2, -1)
        return _times(tail, real, -imaginary)


class RotatE(Interaction):
    r"""Relations as rotations: ``-sum_d |h_d exp(i r_d) - t_d|`` with complex h, t and angles r.

    References
    ----------
    Sun et al., RotatE: Knowledge Graph Embedding by Relational Rotation in Complex Space, ICLR 2019, with the
    sum of moduli of its released code.

    Examples
    --------
    >>> import torch
    >>> RotatE().score(torch.tensor([1.0, 0.0]), torch.tensor([torch.pi]), torch.tensor([1.0, 0.0]))
    tensor(-2.)
    """

    kind = "complex"

    def relation_size(self, size: int) -> int:
        """Return half of `size`, which must be even: one angle a complex number."""
        return _complex_size(self, size)

    def init_relation_(self, relation: Tensor) -> None:
        """Draw angles of the whole circle."""
        nn.init.uniform_(relation, -math.pi, math.pi)

    def tail_query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return h, turned."""
        return _times(head, relation.cos(), relation.sin())

    def head_query(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return t, turned back: rotations keep distances."""
        return _times(tail, relation.cos(), -relation.sin())


INTERACTIONS: Mapping[str, Interaction] = MappingProxyType(
    {"transe": TransE(1), "transe-l2": TransE(2), "distmult": DistMult(), "complex": ComplEx(), "rotate": RotatE()}
)
"""By name; they hold no parameters and can be shared."""


def get_interaction(name: str) -> Interaction:
    """Return the interaction called `name`.

    Raises
    ------
    ConfigError
        There is none; the message lists the known names.
    """
    if name not in INTERACTIONS:
        raise ConfigError(f"interaction: {unknown_name('interaction', name, INTERACTIONS)}")
    return INTERACTIONS[name]


def _complex_size(interaction: Interaction, size: int) -> int:
    if size < 2 or size % 2:
        raise ConfigError(
            f"{type(interaction).__name__}, size: complex vectors need an even number of at least 2, got {size}"
        )
    return size // 2


def _times(x: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """Multiply complex vectors ``(*, D)`` by numbers given as two parts ``(*, D / 2)``."""
    x_real, x_imaginary = x.chunk(2, -1)
    return torch.cat([x_real * real - x_imaginary * imaginary, x_real * imaginary + x_imaginary * real], -1)
