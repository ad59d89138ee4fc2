"""The negative samplers under test, and what each of them made of a batch, in one form for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels.negative_sampling import KnownTriples
from hgmm.sampling import BernoulliNegativeSampler, EntityNegativeSampler, NegativeBatch, UniformNegativeSampler
from hgmm.sampling.entities import bernoulli_head_share
from hgmm.settings import using_backend

__all__ = ["PROVIDERS", "Drawn", "Graph", "Parts", "Provider", "Sampler"]

SEED = 0


class Graph(NamedTuple):
    """A knowledge graph whose training triples are the positives and all that is known.

    Attributes
    ----------
    name, source : str
        As `hgmm.datasets` has them.
    train : Tensor
        ``(n, 3)`` int64 (head, relation, tail).
    num_entities, num_relations : int
        E and R; E^2 R is below 2^63.
    """

    name: str
    source: str
    train: Tensor
    num_entities: int
    num_relations: int

    def keys(self, triples: Tensor) -> Tensor:
        """Return one number for each triple of ``(..., 3)``."""
        head, relation, tail = triples.unbind(-1)
        return (head * self.num_relations + relation) * self.num_entities + tail


class Drawn(NamedTuple):
    """The negatives of a batch.

    Attributes
    ----------
    triples : Tensor
        ``(B, K, 3)`` int64.
    delivered : Tensor
        ``(B, K)`` bool, False where a filter has struck a negative out.
    """

    triples: Tensor
    delivered: Tensor


class Sampler(NamedTuple):
    """A provider that is ready to draw.

    Attributes
    ----------
    draw : callable
        Maps ``(B, 3)`` positives, K and the number of the batch to the provider's own result; this is timed.
    drawn : callable
        Maps that result and the positives to `Drawn`.
    """

    draw: Callable[[Tensor, int, int], Any]
    drawn: Callable[[Any, Tensor], Drawn]


class Parts:
    """What several providers need of one graph, made when the first of them asks."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sizes = {"num_entities": graph.num_entities, "num_relations": graph.num_relations}

    @cached_property
    def bernoulli(self) -> EntityNegativeSampler:
        """Of hgmm."""
        E, R, train = self.graph.num_entities, self.graph.num_relations, self.graph.train
        return BernoulliNegativeSampler(train, E, R, known=train)

    @cached_property
    def uniform(self) -> EntityNegativeSampler:
        """Of hgmm."""
        return UniformNegativeSampler(self.graph.num_entities, self.graph.num_relations, known=self.graph.train)

    @cached_property
    def pykeen_samplers(self) -> dict[str, Any]:
        """By name, without a filter."""
        sampling = import_module("pykeen.sampling")
        kinds = {"basic": sampling.BasicNegativeSampler, "bernoulli": sampling.BernoulliNegativeSampler}
        return {name: kind(mapped_triples=self.graph.train, **self.sizes) for name, kind in kinds.items()}

    @cached_property
    def bloom(self) -> Any:
        """PyKEEN's filter of hashed bits."""
        return import_module("pykeen.sampling.filtering").BloomFilterer(mapped_triples=self.graph.train)

    @cached_property
    def python_set(self) -> Any:
        """PyKEEN's exact filter."""
        return import_module("pykeen.sampling.filtering").PythonSetFilterer(mapped_triples=self.graph.train)


@dataclass(frozen=True)
class Provider:
    """A way to draw negatives.

    Parameters
    ----------
    build : callable
        Makes the sampler of a graph.
    missing : callable
        Returns why it cannot run here, None if it can.
    filtered : bool, optional
        Whether it says that no known triple is left; held to it before anything is timed.
    threaded : bool, optional
        Whether it uses more than one thread.
    """

    build: Callable[[Parts], Sampler]
    missing: Callable[[], str | None]
    filtered: bool = True
    threaded: bool = True


def _own(kind: str, backend: str, *, as_triples: bool = False) -> Callable[[Parts], Sampler]:
    def build(parts: Parts) -> Sampler:
        sampler: EntityNegativeSampler = getattr(parts, kind)

        def draw(positives: Tensor, K: int, step: int) -> NegativeBatch | Tensor:
            sampler.num_negs_per_pos = K
            with using_backend(backend):
                batch = sampler.sample(positives, seed=SEED, step=step)
            return batch.triples(positives) if as_triples else batch

        return Sampler(draw, _all_delivered)

    return build


def _all_delivered(result: NegativeBatch | Tensor, positives: Tensor) -> Drawn:
    triples = result if isinstance(result, Tensor) else result.triples(positives)
    return Drawn(triples, torch.ones(triples.shape[:2], dtype=torch.bool))


class _Gaps:
    """OpenKE's filtered draw in NumPy: a place among the entities that are not known, mapped over the gaps.

    With the known entities S of a group in ascending order, place u in [0, E - |S|) is entity u + #{i: S_i - i <= u}.
    Positives must be known triples: else their own entity is no gap.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        sizes = {"num_entities": graph.num_entities, "num_relations": graph.num_relations}
        self._head_share = bernoulli_head_share(graph.train, **sizes).numpy()
        self._known = known = KnownTriples.build(graph.train, **sizes)
        self._begin, self._count = known.indptr[:-1].numpy(), known.indptr.diff().numpy()
        # S_i - i, in one ascending row for all groups.
        rank = np.arange(len(known.flat)) - self._begin.repeat(self._count)
        self._gaps = known.flat.numpy() - rank
        self._rng = np.random.default_rng(SEED)

    def draw(self, positives: Tensor, K: int, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return entities and whether the tail is replaced: (B, K) each."""
        rows, E = positives.numpy(), self._graph.num_entities
        is_tail = self._rng.random((len(rows), K)) >= self._head_share[rows[:, 1], None]
        group = np.where(is_tail, *self._known.group(positives).numpy()[:, ::-1].T[..., None])
        place = (self._rng.random(group.shape) * (E - self._count[group])).astype(np.int64)
        before = np.searchsorted(self._gaps, group * E + place, side="right") - self._begin[group]
        return place + before, is_tail


def _openke_like(parts: Parts) -> Sampler:
    def drawn(result: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]], positives: Tensor) -> Drawn:
        entity, is_tail = map(torch.from_numpy, result)
        everywhere = torch.ones(1, dtype=torch.bool).expand(*entity.shape, 1)
        return _all_delivered(NegativeBatch(entity, is_tail.to(torch.int8), everywhere), positives)

    return Sampler(_Gaps(parts.graph).draw, drawn)


def _pykeen(kind: str, filterer: str | None) -> Callable[[Parts], Sampler]:
    def build(parts: Parts) -> Sampler:
        sampler, keeps = parts.pykeen_samplers[kind], None if filterer is None else getattr(parts, filterer)
        torch.manual_seed(SEED)

        # The two steps of its own `sample`; so one filter serves two samplers.
        def draw(positives: Tensor, K: int, step: int) -> tuple[Tensor, Tensor | None]:
            sampler.num_negs_per_pos = K
            negatives = sampler.corrupt_batch(positive_batch=positives)
            return negatives, None if keeps is None else keeps(negative_batch=negatives)

        return Sampler(draw, _masked)

    return build


def _masked(result: tuple[Tensor, Tensor | None], positives: Tensor) -> Drawn:
    triples, mask = result
    return Drawn(triples, torch.ones(triples.shape[:2], dtype=torch.bool) if mask is None else mask)


def _nothing_missing() -> None:
    return None


def _no_pykeen() -> str | None:
    return None if find_spec("pykeen") else "pykeen is not installed: pip install pykeen"


def _providers() -> dict[str, Provider]:
    found = {
        "hgmm-cpu": Provider(_own("bernoulli", "cpu"), _native.missing_reason),
        "hgmm-cpu-triples": Provider(_own("bernoulli", "cpu", as_triples=True), _native.missing_reason),
        "hgmm-cpu-uniform": Provider(_own("uniform", "cpu"), _native.missing_reason),
        "hgmm-torch": Provider(_own("bernoulli", "reference"), _nothing_missing),
        "openke-like": Provider(_openke_like, _nothing_missing, threaded=False),
    }
    for kind in ("basic", "bernoulli"):
        for filterer in (None, "bloom", "python_set"):
            name = "-".join(filter(None, ["pykeen", kind, filterer])).replace("_", "-")
            found[name] = Provider(_pykeen(kind, filterer), _no_pykeen, filtered=filterer is not None)
    return found


PROVIDERS: Mapping[str, Provider] = MappingProxyType(_providers())
