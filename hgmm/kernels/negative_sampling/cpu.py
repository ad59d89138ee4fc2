"""The draws on the CPU, compiled: the border to ``csrc/negative_sampling.cpp``."""

from __future__ import annotations

import ctypes
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels.negative_sampling.inputs import DrawInputs, Drawn, empty_entities
from hgmm.kernels.negative_sampling.known import KnownTriples

__all__ = ["run", "unsupported_reasons"]

# Mirror ``struct IndexArgs`` and ``struct DrawArgs`` of the source.
_IndexArgs = _native.structure(
    sizes=("num_groups", "num_slots"), flags=(), pointers=("keys", "indptr", "entities", "slots", "blocks")
)
_DrawArgs = _native.structure(
    sizes=(
        *("num_positives", "K", "num_entities", "num_heads", "num_tails", "num_relations", "seed", "step"),
        *("num_slots", "chunk_size"),
    ),
    flags=("threads", "only_sides"),
    pointers=(
        *("positives", "head_below", "table", "indptr", "ids", "first", "slots", "blocks", "entity", "side", "level"),
    ),
)


class _Index(NamedTuple):
    """The hash table of csrc/known_triples.h."""

    slots: Tensor
    blocks: Tensor


_indices: WeakKeyDictionary[KnownTriples, _Index] = WeakKeyDictionary()


def unsupported_reasons(inputs: DrawInputs) -> list[str]:
    """Say what of these inputs the compiled sampler cannot do."""
    return _native.device_reasons(inputs.positives)


def run(inputs: DrawInputs) -> Drawn:
    """Draw as ``reference.run`` does."""
    p, (B, K), known, pools = _native.pointer, inputs.shape, inputs.known, inputs.pools
    entity, side = empty_entities(inputs), torch.empty(inputs.shape, dtype=torch.int8)
    level = None if inputs.level is None else inputs.level.clone(memory_format=torch.contiguous_format)
    index = None if known is None or inputs.only_sides else _index(known)
    first = None if inputs.first is None else inputs.first.contiguous()
    args = _DrawArgs(
        num_positives=B,
        K=K,
        num_entities=0 if known is None else known.num_entities,
        num_heads=inputs.num_heads,
        num_tails=inputs.num_tails,
        num_relations=inputs.head_below.numel(),
        seed=inputs.seed,
        step=inputs.step,
        num_slots=0 if index is None else index.slots.numel(),
        chunk_size=inputs.chunk_size,
        threads=torch.get_num_threads(),
        only_sides=inputs.only_sides,
        positives=p(inputs.positives),
        head_below=p(inputs.head_below),
        table=None if pools is None else p(pools.table),
        indptr=None if pools is None else p(pools.indptr),
        ids=None if pools is None else p(pools.ids),
        first=p(first),
        slots=None if index is None else p(index.slots),
        blocks=None if index is None else p(index.blocks),
        entity=p(entity),
        side=p(side),
        level=p(level),
    )
    failed = ctypes.c_int64(-1)
    _native.call(_native.library().hgmm_draw_negatives, ctypes.byref(args), ctypes.byref(failed))
    return Drawn(entity, side, None if inputs.only_sides else level, failed.value)


def _index(known: KnownTriples) -> _Index:
    if known not in _indices:
        _indices[known] = _build(known)
    return _indices[known]


def _build(known: KnownTriples) -> _Index:
    groups, library = known.keys.numel(), _native.library()
    library.hgmm_known_triples_words.restype = ctypes.c_int64
    # At most two of three slots are taken.
    num_slots = 1 << max(1, (groups + groups // 2).bit_length())
    words = library.hgmm_known_triples_words(ctypes.c_void_p(known.indptr.data_ptr()), ctypes.c_int64(groups))
    index = _Index(torch.empty(num_slots, dtype=torch.int64), torch.empty(words, dtype=torch.int32))
    entities = known.entities()
    args = _IndexArgs(
        num_groups=groups,
        num_slots=num_slots,
        keys=known.keys.data_ptr(),
        indptr=known.indptr.data_ptr(),
        entities=entities.data_ptr(),
        slots=index.slots.data_ptr(),
        blocks=index.blocks.data_ptr(),
    )
    _native.call(library.hgmm_known_triples_index, ctypes.byref(args))
    return index
