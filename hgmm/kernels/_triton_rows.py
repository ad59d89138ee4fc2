"""What all Triton operators share: how rows are spread over programs, launches, sums over the parts of long rows.

A program works off either a run of consecutive rows that together hold about `RUN_WORK` edges, or one part of a row of
more than `LONGEST_ROW` edges. What the parts give is combined afterwards, in order; so every number has one writer and
its sum one order, whatever the device does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from hgmm.kernels._triton import interpreted
from hgmm.kernels._triton_device import log_sum_exp_of_parts, sum_of_parts

__all__ = [
    "Launch",
    "Rows",
    "absent",
    "accumulator",
    "block",
    "launch",
    "log_sum_exp_parts",
    "recorded",
    "rows_of",
    "sum_parts",
    "two_floats",
]

# Edges and rows of a program's run; two hundred programs a multiprocessor for a million edges and four heads.
RUN_WORK = 64
# A part's length: long enough that combining costs little, short enough that one row's tail does not hold up the rest.
LONGEST_ROW = 512
# Numbers in a tile of gathered vectors, and warps that share it; the first is the default. SMALL_TILES are for kernels
# that need more registers a number.
TILES = ((1024, 2), (1024, 1), (2048, 4), (512, 1))
SMALL_TILES = ((512, 2), (256, 1), (512, 1), (1024, 4))
MOST_EDGES = 32
MOST_WARPS = 8
# Below it, where a GPU holds about all programs at once, compiling the other tiles takes longer than they could save.
FEWEST_TO_TUNE = 4096
# Left alone, the assembler spills some registers of a loop to fit one more program on a multiprocessor.
_REGISTERS = {} if torch.version.hip else {"maxnreg": 168}


class Rows(NamedTuple):
    """How the rows of one side of a relation are spread over programs.

    With three rows of 2, 1300 and 1 edges, `LONGEST_ROW` 512 and all short rows in one run::

        runs       = [0, 3]
        part_row   = [1, 1, 1]   part_begin = [2, 514, 1026]   part_end = [514, 1026, 1302]
        split_row  = [1]         split_ptr  = [0, 3]

    Attributes
    ----------
    indptr : Tensor
        ``(N + 1,)`` row pointers.
    runs : Tensor
        ``(R + 1,)`` first row of each run; a run leaves out the long rows that lie in it.
    part_row, part_begin, part_end : Tensor
        ``(S,)`` row and edges of each part of a long row.
    split_row, split_ptr : Tensor
        ``(L,)`` long rows and ``(L + 1,)`` their first parts.
    longest : int
        Edges of the longest row that is not split.
    """

    indptr: Tensor
    runs: Tensor
    part_row: Tensor
    part_begin: Tensor
    part_end: Tensor
    split_row: Tensor
    split_ptr: Tensor
    longest: int

    @property
    def num_runs(self) -> int:
        """Number of runs."""
        return self.runs.numel() - 1

    @property
    def num_parts(self) -> int:
        """Number of parts of long rows."""
        return self.part_row.numel()


_rows: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def rows_of(indptr: Tensor) -> Rows:
    """Spread rows over programs; kept for as long as `indptr` lives, since it waits for the device."""
    # A tensor made in inference mode counts no changes, so nothing that is kept for it could be trusted.
    if indptr.is_inference():
        return _spread(indptr.long(), RUN_WORK, LONGEST_ROW)._replace(indptr=indptr)
    key = (indptr._version, RUN_WORK, LONGEST_ROW)
    found = _rows.get(indptr)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if found is None or found[0] != key:
        found = _rows[indptr] = (key, _spread(indptr.long(), RUN_WORK, LONGEST_ROW))
    rows: Rows = found[1]
    return rows._replace(indptr=indptr)


def _spread(indptr: Tensor, work: int, longest: int) -> Rows:
    num_rows = indptr.numel() - 1
    position = indptr + torch.arange(num_rows + 1, device=indptr.device)
    total = int(position[-1])
    runs = torch.searchsorted(position, torch.arange(0, total + work, work, device=indptr.device)).clamp_(max=num_rows)
    degree = indptr.diff()
    (split_row,) = torch.nonzero(degree > longest, as_tuple=True)
    parts = (degree[split_row] + longest - 1) // longest
    split_ptr = torch.nn.functional.pad(parts.cumsum(0), (1, 0))
    part_row = split_row.repeat_interleave(parts)
    within = torch.arange(part_row.numel(), device=indptr.device) - split_ptr[:-1].repeat_interleave(parts)
    begin = indptr[part_row] + within * longest
    end = torch.minimum(begin + longest, indptr[part_row + 1])
    # Without the row pointers, which would keep their own key alive.
    return Rows(indptr.new_empty(0), runs, part_row, begin, end, split_row, split_ptr, longest)


class Launch(NamedTuple):
    """One call of a kernel with one of its tiles, as `recorded` keeps it.

    Attributes
    ----------
    kernel : triton.JITFunction
        The kernel.
    arguments : dict
        Arguments and constants by name.
    options : dict
        What the compiler is told.
    default : bool
        Whether the tile is the default one.
    """

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]
    default: bool


_recorder: list[Launch] | None = None


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Keep the launches instead of running them, so that they can be compiled where there is no device."""
    global _recorder
    before, _recorder = _recorder, []
    try:
        yield _recorder
    finally:
        _recorder = before


def launch(
    kernel: Any,
    programs: int,
    arguments: Sequence[Any],
    constants: dict[str, Any],
    *,
    numbers: int,
    small: bool = False,
    fuse: bool = True,
) -> None:
    """Run a kernel with the best of the declared tiles.

    On CUDA the first call for each set of `constants` and dtypes times the declared tiles. The default tile is taken
    for fewer than `FEWEST_TO_TUNE` programs; and in the interpreter and under ``torch.use_deterministic_algorithms``,
    so that runs of different processes give the same bits too.

    Parameters
    ----------
    kernel : triton.JITFunction
        Takes ``arguments``, then ``constants`` and ``BE``, the edges of a tile, by name.
    programs : int
        Size of the grid.
    arguments : sequence
        Tensors and numbers in the order of the kernel's parameters; the first tensor says the device.
    constants : dict
        The ``tl.constexpr`` parameters.
    numbers : int
        Numbers of a gathered vector in the tile.
    small : bool, optional
        Take `SMALL_TILES`.
    fuse : bool, optional
        Let the compiler fuse multiplications and additions. Fused, the lanes that add up the same number may round it
        differently, and a number less itself need not be 0: False is for kernels that need the sign of a difference.
    """
    if programs == 0:
        return
    # Named even where it is on, because Triton is about to change its default.
    options = {"enable_fp_fusion": fuse, **_REGISTERS}
    tiles = _tiles(numbers, small)
    if _recorder is not None:
        named = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        _recorder.extend(
            Launch(kernel, {**named, "BE": edges}, {**options, "num_warps": warps}, place == 0)
            for place, (edges, warps) in enumerate(tiles)
        )
        return
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]  # as above
        if programs < FEWEST_TO_TUNE or _takes_default():
            edges, warps = tiles[0]
            kernel[(programs,)](*arguments, **constants, **options, BE=edges, num_warps=warps)
        else:
            _tuned(kernel, tiles, tuple(constants))[(programs,)](*arguments, **constants, **options)


def _takes_default() -> bool:
    return interpreted() or torch.are_deterministic_algorithms_enabled()


def _tiles(numbers: int, small: bool) -> tuple[tuple[int, int], ...]:
    """Turn the tiles' sizes into edges and warps; vectors too long for a tile are shared by more warps."""
    found = {
        (max(1, min(MOST_EDGES, size // numbers)), min(MOST_WARPS, max(warps, numbers // size))): None
        for size, warps in (SMALL_TILES if small else TILES)
    }
    return tuple(found)


@cache
def _tuned(kernel: Any, tiles: tuple[tuple[int, int], ...], names: tuple[str, ...]) -> Any:
    configs = [triton.Config({"BE": edges}, num_warps=warps) for edges, warps in tiles]
    return triton.autotune(configs=configs, key=list(names))(kernel)


def absent(like: Tensor) -> Tensor:
    """Return what stands for a tensor that a kernel does not read."""
    return like.new_empty(1)


def accumulator(x: Tensor) -> tuple[torch.dtype, tl.dtype]:
    """Return what sums of `x` are formed in: float32, or float64 for float64."""
    return (torch.float64, tl.float64) if x.dtype == torch.float64 else (torch.float32, tl.float32)


def two_floats(x: float) -> tuple[float, float]:
    """Return two float32 numbers that add up to `x`: kernels get Python's numbers as float32."""
    high = float(torch.tensor(x, dtype=torch.float32))
    return high, x - high


def block(size: int) -> int:
    """Return the power of two that a tile takes for `size` lanes."""
    return 1 << max(0, size - 1).bit_length()


def sum_parts(rows: Rows, parts: Tensor) -> Tensor:
    """Add up what the parts of each long row gave: ``(S, *)`` to ``(L, *)``, in the order of the parts."""
    return _combine(sum_of_parts, rows, parts)


def log_sum_exp_parts(rows: Rows, parts: Tensor) -> Tensor:
    """Join logarithms of sums in the same way; ``-inf`` stands for an empty sum."""
    return _combine(log_sum_exp_of_parts, rows, parts)


def _combine(kernel: Any, rows: Rows, parts: Tensor) -> Tensor:
    count, width, lanes = rows.split_row.numel(), parts.shape[1:].numel(), 64
    out = parts.new_empty(count, *parts.shape[1:])
    programs = count * -(-width // lanes)
    launch(kernel, programs, (parts, rows.split_ptr, out, width), {"BX": lanes}, numbers=lanes)
    return out
