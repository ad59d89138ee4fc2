"""The operator's contract."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kernels._checks import (
    FLOAT_DTYPES,
    HALF_DTYPES,
    cast_for_autocast,
    check_axes,
    check_choice,
    check_dense,
    describe_tensor,
)
from hgmm.kernels._dispatch import Backend, compiled_backends, select
from hgmm.kernels.translational_score import autograd, reference
from hgmm.kernels.translational_score.inputs import NORMS, TranslationalInputs

__all__ = ["BACKENDS", "translational_score"]

_OP = "translational_score"
BACKENDS = (
    *compiled_backends(_OP, autograd.run),
    Backend("reference", reference.run, reference.unsupported_reasons),
)


def translational_score(
    query: Tensor,
    table: Tensor,
    entity: Tensor,
    side: Tensor,
    pairs: Tensor,
    norm: Literal[1, 2, "complex"] = 1,
) -> Tensor:
    r"""Measure how far drawn entities lie from queries, for pairs of modalities.

    ``out[b, k, p] = norm(query[b, s, a] - table[entity[b, k], m])`` with ``s = side[b, k]`` and
    ``(a, m) = pairs[s, p]``. For a translational model, side 0 (corrupted head) asks for ``tail - relation`` and side 1
    (corrupted tail) for ``head + relation``.

    Parameters
    ----------
    query : Tensor
        ``(B, S, A, D)`` where the drawn entity should lie, by side and by modality of the end that is kept: float64,
        float32, bfloat16 or float16.
    table : Tensor
        ``(N, M, D)`` entities by modality; dtype of `query`, or bfloat16 or float16 beside float32 queries, which
        halves the bytes that are read for each draw.
    entity : Tensor
        ``(B, K)`` int32 or int64, ids in ``[0, N)``.
    side : Tensor
        ``(B, K)`` int8 in ``[0, S)``: which of the queries of b the draw belongs to.
    pairs : Tensor
        ``(S, P, 2)`` int64: by side, the places ``a < A`` in `query` and ``m < M`` in `table` of each distance.
    norm : {1, 2, "complex"}, optional
        ``sum |x|``; ``sqrt(sum x^2)``; or, for even D, the sum of the moduli of ``D / 2`` complex numbers whose real
        parts are the first half of a vector and whose imaginary parts the second (RotatE).

    Returns
    -------
    Tensor
        ``(B, K, P)``, dtype of `query`.

    Raises
    ------
    ShapeError
        A tensor has the wrong shape, dtype or device.
    ConfigError
        `norm` is none of the three, or on the CPU an id, a side or a pair is out of range. On other devices these are
        trusted, and under torch.compile the reference leaves them to torch.
    BackendError
        The backend that ``HGMM_BACKEND`` names refuses the input, or second derivatives were asked of a backend other
        than ``reference``.

    Notes
    -----
    Differentiable in `query` and `table`. The derivative is 0 where the norm has none: by coordinate at equality for 1,
    at distance 0 for 2, by complex number at modulus 0 for ``"complex"``. Entities that were not drawn get a gradient
    of 0.

    NaN and infinities go on as arithmetic has it, but the derivative of norm 1 is 0 at a coordinate that is NaN, as
    that of ``torch.abs``. Forward-mode derivatives and ``torch.func`` are treated as by `cross_modal_attention`.

    Accumulates in float32, or float64 for float64 input. Under ``torch.autocast`` `query` and `table` other than
    float64 are cast to its dtype first.

    Never holds a tensor of size B x K x D. Beside inputs, results and gradients, the compiled implementations take
    ``B K + N`` integers for the gradient of `table`, the reference one block of differences; for norm 1 the one on the
    CPU keeps a bit for each coordinate of each distance, ``B K P D / 8`` bytes, up to 32 MiB. They are deterministic
    for any number of threads; the reference is so on the CPU, and elsewhere under
    ``torch.use_deterministic_algorithms``.

    References
    ----------
    TransE, NIPS 2013 (norms 1 and 2), and RotatE, ICLR 2019 (complex). The pairs of modalities are those of MANS, IJCNN
    2023, arXiv 2304.11618: structure and image of head and tail, each with each.

    Examples
    --------
    One query, two draws, and the distance from each of two modalities:

    >>> import torch
    >>> from hgmm.kernels import translational_score
    >>> query = torch.tensor([1.0, 1.0]).view(1, 1, 1, 2)
    >>> table = torch.tensor([[1.0, 1.0], [0.0, 0.0], [4.0, 5.0], [1.0, 0.0]]).view(2, 2, 2)
    >>> entity, side = torch.tensor([[0, 1]]), torch.zeros(1, 2, dtype=torch.int8)
    >>> pairs = torch.tensor([[[0, 0], [0, 1]]])
    >>> translational_score(query, table, entity, side, pairs)
    tensor([[[0., 2.],
             [7., 1.]]])
    >>> translational_score(query, table, entity, side, pairs, norm=2)[0, 1]
    tensor([5., 1.])
    """
    check_dense(_OP, {"query": query, "table": table, "entity": entity, "side": side, "pairs": pairs})
    query, table = cast_for_autocast(query, table)  # type: ignore[assignment]  # None stays None only
    _check_vectors(query, table)
    _check_ids(query, entity, side, pairs)
    check_choice(_OP, "norm", str(norm), NORMS)
    if norm == "complex" and query.shape[-1] % 2:
        raise ShapeError(
            f"{_OP}, argument query: expected an even D for norm='complex', got {query.shape[-1]}; "
            "the first half of a vector are real parts, the second imaginary parts"
        )
    inputs = TranslationalInputs(query, table, entity, side, pairs, str(norm))
    return select(_OP, BACKENDS, inputs).run(inputs)


def _check_vectors(query: Tensor, table: Tensor) -> None:
    check_axes(_OP, "argument query", query, ("B", "S", "A", "D"), hint="pass one query a side and modality")
    _check_not_empty("query", query, "S, A and D")
    D = query.shape[-1]
    check_axes(_OP, "argument table", table, ("N", "M", D), hint="D is that of query")
    _check_not_empty("table", table, "M")
    if query.dtype not in FLOAT_DTYPES:
        raise ShapeError(
            f"{_OP}, argument query: expected float64, float32, bfloat16 or float16, got {describe_tensor(query)}; "
            "cast it"
        )
    stored = query.dtype == torch.float32 and table.dtype in HALF_DTYPES
    if table.device != query.device or not (stored or table.dtype == query.dtype):
        raise ShapeError(
            f"{_OP}, argument table: expected dtype and device of query, {query.dtype} on {query.device}, or half "
            f"precision beside float32, got {describe_tensor(table)}; cast or move it"
        )


def _check_ids(query: Tensor, entity: Tensor, side: Tensor, pairs: Tensor) -> None:
    B, S, _, _ = query.shape
    check_axes(_OP, "argument entity", entity, (B, "K"), hint="pass K draws for each of the B rows of query")
    check_axes(_OP, "argument side", side, tuple(entity.shape), hint="pass one side a draw")
    check_axes(_OP, "argument pairs", pairs, (S, "P", 2), hint="pass P pairs for each of the S sides of query")
    _check_not_empty("pairs", pairs, "P")
    for name, x, dtypes in (
        ("entity", entity, (torch.int32, torch.int64)),
        ("side", side, (torch.int8,)),
        ("pairs", pairs, (torch.int64,)),
    ):
        if x.dtype not in dtypes or x.device != query.device:
            wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise ShapeError(
                f"{_OP}, argument {name}: expected {wanted} on the device of query, {query.device}, got "
                f"{describe_tensor(x)}; cast or move it"
            )


def _check_not_empty(name: str, x: Tensor, letters: str) -> None:
    if 0 in x.shape[1:]:
        raise ShapeError(
            f"{_OP}, argument {name}: expected {letters} of at least 1, got shape {tuple(x.shape)}; only B, K and N "
            "may be 0"
        )
