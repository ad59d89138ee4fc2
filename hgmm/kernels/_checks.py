"""Checks of the operators' arguments; each error names operator, argument, rule and what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError, unknown_name
from hgmm.typing import RelationCSC

__all__ = [
    "FLOAT_DTYPES",
    "HALF_DTYPES",
    "MAX_MODALITIES",
    "attention_refusals",
    "cast_for_autocast",
    "check_axes",
    "check_choice",
    "check_classes",
    "check_csc",
    "check_dense",
    "check_keys",
    "check_number",
    "check_queries",
    "check_tensor",
    "describe_tensor",
]

FLOAT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HALF_DTYPES = (torch.bfloat16, torch.float16)
MAX_MODALITIES = 8
"""What the compiled attentions take: a node's mask of modalities is one byte; csrc/api.h has the same number."""
_INDEX_DTYPES = (torch.int32, torch.int64)
# Asked once, because dynamo does not trace the question in every release.
_AUTOCAST_DEVICES = frozenset(x for x in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(x))


def describe_tensor(x: Tensor | None) -> str:
    """Return for example ``float32 (5, 2, 4, 8) on cpu``."""
    if x is None:
        return "None"
    return f"{_short(x.dtype)} {tuple(x.shape)} on {x.device}"


def check_dense(op: str, tensors: Mapping[str, object]) -> None:
    """Check that arguments, by name, are dense tensors or None, before anything is asked of them.

    Raises
    ------
    ShapeError
        Naming the argument.
    """
    for name, x in tensors.items():
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"{op}, argument {name}: expected a torch.Tensor, got {type(x).__name__}; torch.as_tensor makes one"
            )
        if x.layout != torch.strided:
            raise ShapeError(f"{op}, argument {name}: expected a dense tensor, got {x.layout}; pass {name}.to_dense()")


def check_csc(op: str, csc: RelationCSC) -> None:
    """Check form, dtype and device of the five index tensors.

    The ids are trusted (`hgmm.graph.csc` builds them). The last row pointers are compared with the number of edges on
    the CPU only, as reading them on another device would wait for it, and not while torch.compile traces, when they
    have no value yet.

    Raises
    ------
    ShapeError
        Naming the tensor, or saying that `csc` is none of these records.
    """
    if not isinstance(csc, RelationCSC):
        raise ShapeError(
            f"{op}, argument csc: expected a hgmm.typing.RelationCSC, got {type(csc).__name__}; "
            "hgmm.graph.relation_csc makes one of a graph, RelationCSC(*tensors) one of five tensors"
        )
    check_dense(op, {f"csc.{name}": x for name, x in zip(csc._fields, csc, strict=True)})
    for name, x in zip(csc._fields, csc, strict=True):
        if x.dim() != 1 or x.dtype not in _INDEX_DTYPES:
            raise ShapeError(
                f"{op}, argument csc.{name}: expected one dimension of int32 or int64, got {describe_tensor(x)}; "
                "build it with hgmm.graph.csc"
            )
        if x.device != csc.indices.device:
            raise ShapeError(
                f"{op}, argument csc.{name}: all index tensors lie on the device of csc.indices, "
                f"{csc.indices.device}, got {x.device}; move the whole RelationCSC"
            )
    for name, x in (("indices_t", csc.indices_t), ("edge_pos_t", csc.edge_pos_t)):
        if x.numel() != csc.indices.numel():
            raise ShapeError(
                f"{op}, argument csc.{name}: expected one entry for each of the {csc.indices.numel()} edges in "
                f"csc.indices, got {x.numel()}; build it with hgmm.graph.csc"
            )
    for name, x in (("indptr", csc.indptr), ("indptr_t", csc.indptr_t)):
        _check_indptr(op, name, x, csc.indices.numel())


def _check_indptr(op: str, name: str, indptr: Tensor, num_edges: int) -> None:
    if indptr.numel() == 0:
        raise ShapeError(
            f"{op}, argument csc.{name}: expected one entry more than nodes, got 0 entries; "
            "a relation without nodes has the row pointers [0]"
        )
    if torch.compiler.is_compiling() or indptr.device.type != "cpu":
        return
    ends = indptr[:: max(1, indptr.numel() - 1)].tolist()
    first, last = ends[0], ends[-1]
    if (first, last) != (0, num_edges):
        raise ShapeError(
            f"{op}, argument csc.{name}: expected to run from 0 to the number of edges, {num_edges}, "
            f"got {first} to {last}; build it with hgmm.graph.csc"
        )


def check_tensor(
    op: str,
    name: str,
    x: Tensor,
    *,
    letters: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    given_by: str = "k",
) -> None:
    """Check a tensor against the shape, dtype and device that the other arguments imply.

    Parameters
    ----------
    op, name : str
        Operator and argument, for the message.
    x : Tensor
        The argument.
    letters : str
        The shape in letters, for the message: ``"(N_dst, M, H, D)"``.
    shape, dtype, device
        What is expected.
    given_by : str, optional
        The argument that gives the sizes together with csc, for the message.

    Raises
    ------
    ShapeError
        Naming the argument.
    """
    if x.shape != shape:
        raise ShapeError(
            f"{op}, argument {name}: expected shape {letters} = {shape}, got {tuple(x.shape)}; "
            f"the sizes follow from csc and {given_by}"
        )
    if x.dtype != dtype:
        raise ShapeError(
            f"{op}, argument {name}: expected dtype {_short(dtype)}, got {_short(x.dtype)}; cast it before the call"
        )
    if x.device != device:
        raise ShapeError(f"{op}, argument {name}: expected device {device}, got {x.device}; move it before the call")


def check_keys(op: str, k: Tensor, csc: RelationCSC) -> None:
    """Check the keys, from which the sizes M, H, D, the dtype and the device of all other arguments follow.

    Raises
    ------
    ShapeError
        If `k` is not ``(N_src, M, H, D)`` with M, H, D of at least 1, floating, on the device of `csc`.
    """
    if k.dim() != 4 or k.shape[0] != csc.num_src or 0 in k.shape[1:]:
        raise ShapeError(
            f"{op}, argument k: expected shape (N_src, M, H, D) with N_src = {csc.num_src} from csc.indptr_t and "
            f"M, H, D of at least 1, got {tuple(k.shape)}; pass the projected keys of the source nodes"
        )
    if k.dtype not in FLOAT_DTYPES:
        raise ShapeError(
            f"{op}, argument k: expected a dtype of {', '.join(map(_short, FLOAT_DTYPES))}, got {_short(k.dtype)}; "
            "cast all float arguments"
        )
    if k.device != csc.indices.device:
        raise ShapeError(
            f"{op}, argument k: expected the device of csc, {csc.indices.device}, got {k.device}; "
            "move csc to the device of the features"
        )


def check_queries(op: str, name: str, q: Tensor, *, k: Tensor, num_dst: int) -> None:
    """Check queries against the keys: the same sizes and dtype, or float32 beside keys that are stored in half of it.

    Raises
    ------
    ShapeError
        If `q` is not ``(N_dst, M, H, D)`` of such a dtype on the device of `k`.
    """
    mixed = k.dtype in HALF_DTYPES and q.dtype == torch.float32
    dtype = q.dtype if mixed else k.dtype
    check_tensor(op, name, q, letters="(N_dst, M, H, D)", shape=(num_dst, *k.shape[1:]), dtype=dtype, device=k.device)


def check_choice(op: str, name: str, value: str, known: Iterable[str]) -> None:
    """Check that `value` is one of `known`.

    Raises
    ------
    ConfigError
        Listing the known names.
    """
    if value not in known:
        raise ConfigError(f"{op}, argument {name}: {unknown_name(name, value, known)}")


def check_axes(
    where: str, name: str, x: Tensor, axes: tuple[int | str, ...], *, hint: str, dtype: torch.dtype | None = None
) -> None:
    """Check the shape of a tensor, and maybe its dtype.

    Parameters
    ----------
    where, name : str
        Function and argument, for the message.
    x : Tensor
        The argument.
    axes : tuple of int or str
        The length of each axis; a letter stands for any length.
    hint : str
        Closes the message on a wrong shape.
    dtype : torch.dtype, optional
        What is expected. Default: any.

    Raises
    ------
    ShapeError
        Naming the argument.
    """
    if x.dim() != len(axes) or any(isinstance(axis, int) and axis != n for axis, n in zip(axes, x.shape, strict=True)):
        words = ", ".join(map(str, axes)) + ("," if len(axes) == 1 else "")
        raise ShapeError(f"{where}, {name}: expected shape ({words}), got {tuple(x.shape)}; {hint}")
    if dtype is not None and x.dtype != dtype:
        raise ShapeError(
            f"{where}, {name}: expected dtype {_short(dtype)}, got {_short(x.dtype)}; cast it before the call"
        )


def check_classes(where: str, name: str, classes: Tensor, num_classes: int) -> None:
    """Check that all entries are classes.

    Raises
    ------
    ShapeError
        If `classes` is not int64.
    ConfigError
        Naming the first entry outside [0, C).
    """
    if classes.dtype != torch.int64:
        raise ShapeError(f"{where}, {name}: expected dtype int64, got {_short(classes.dtype)}; cast it before the call")
    wrong = ((classes < 0) | (classes >= num_classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ConfigError(
            f"{where}, {name}: classes lie in [0, {num_classes}), got {int(classes[first])} in row {first}; "
            "pass rows with a label only"
        )


def check_below(where: str, ids: Tensor, end: int, hint: str) -> None:
    """Check that ids lie in [0, end).

    On the CPU only, as reading ids on another device would wait for it, and not while torch.compile traces, when they
    have no value yet.

    Raises
    ------
    ConfigError
        With the first one out of range.
    """
    if ids.device.type != "cpu" or torch.compiler.is_compiling() or not ids.numel():
        return
    low, high = map(int, ids.aminmax())
    if low >= 0 and high < end:
        return
    place = tuple(((ids < 0) | (ids >= end)).nonzero()[0].tolist())
    raise ConfigError(f"{where}: ids lie in [0, {end}), got {int(ids[place])} at {place}; the end is {hint}")


def check_number(
    where: str, name: str, value: float, *, low: float, high: float = math.inf, open_low: bool = False, hint: str
) -> None:
    """Check that a finite number lies in [low, high], or with `open_low` in (low, high].

    Raises
    ------
    ConfigError
        Naming the argument.
    """
    if math.isfinite(value) and low <= value <= high and not (open_low and value == low):
        return
    rule = f"{'above' if open_low else 'at least'} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
    raise ConfigError(f"{where}, {name}: must be a finite number {rule}, got {value}; {hint}")


def attention_refusals(return_attention: bool, *tensors: Tensor | None) -> list[str]:
    """Say whether the weights of edges are asked for where a compiled operator would have to differentiate them."""
    wanted = return_attention and torch.is_grad_enabled()
    if wanted and any(x is not None and x.requires_grad for x in tensors):
        return ["the weights of edges are differentiable in the reference only; ask for them under no_grad"]
    return []


def cast_for_autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cast tensors, except float64, to the dtype of the ``torch.autocast`` that is on for the first one's device."""
    assert tensors[0] is not None
    device = tensors[0].device.type
    if not (device in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device)):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x is None or x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
