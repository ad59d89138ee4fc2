from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import (
    cast_for_autocast,
    check_axes,
    check_choice,
    check_classes,
    check_csc,
    check_dense,
    check_keys,
    check_number,
    check_queries,
    check_tensor,
    describe_tensor,
)
from tests.kernels.cases import CASES, relation

CSC = relation(CASES["plain"])
KEYS = torch.zeros(CSC.num_src, 2, 1, 3)


def test_describe_tensor() -> None:
    assert describe_tensor(None) == "None"
    assert describe_tensor(KEYS) == "float32 (6, 2, 1, 3) on cpu"


@pytest.mark.parametrize("name", CASES)
def test_valid_relations_and_keys_pass(name: str) -> None:
    csc = relation(CASES[name], torch.int32)
    check_csc("op", csc)
    check_keys("op", torch.zeros(csc.num_src, 1, 1, 1, dtype=torch.bfloat16), csc)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("indices", torch.zeros(10, 1, dtype=torch.int64), r"csc.indices: expected one dimension .* \(10, 1\)"),
        ("indptr", CSC.indptr.float(), r"csc.indptr: expected .* int64, got float32 \(6,\)"),
        ("indptr_t", CSC.indptr_t.to("meta"), "csc.indptr_t: .* cpu, got meta"),
        ("indices_t", CSC.indices_t[:9], "csc.indices_t: .* 10 edges .* got 9"),
        ("edge_pos_t", CSC.edge_pos_t[:8], "csc.edge_pos_t: .* 10 edges .* got 8"),
        ("indptr", CSC.indptr[:0], "csc.indptr: .* got 0 entries"),
        ("indptr", CSC.indptr - 1, "csc.indptr: .* from 0 to .* 10, got -1 to 9"),
        ("indptr_t", CSC.indptr_t[:-2], "csc.indptr_t: .* 10, got 0 to 8"),
    ],
)
def test_bad_relation(field: str, value: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match="op, argument " + message):
        check_csc("op", CSC._replace(**{field: value}))


def test_a_relation_that_is_none() -> None:
    with pytest.raises(ShapeError, match=r"op, argument csc: expected a .*RelationCSC, got tuple; .*\*tensors"):
        check_csc("op", tuple(CSC))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"op, argument csc.indptr_t: expected a torch.Tensor, got ndarray; "):
        check_csc("op", CSC._replace(indptr_t=CSC.indptr_t.numpy()))  # type: ignore[arg-type]


def test_what_is_no_dense_tensor() -> None:
    check_dense("op", {"x": KEYS, "present": None})
    with pytest.raises(ShapeError, match=r"op, argument x: expected a torch.Tensor, got ndarray; torch.as_tensor"):
        check_dense("op", {"x": KEYS.numpy()})
    with pytest.raises(ShapeError, match=r"op, argument x: expected a dense .* got torch.sparse_coo; .*to_dense\(\)"):
        check_dense("op", {"x": KEYS.to_sparse()})


def test_row_pointers_on_another_device_are_not_read() -> None:
    check_csc("op", CSC._replace(**{name: x.to("meta") for name, x in CSC._asdict().items()}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (KEYS[0], r"N_src = 6 .* got \(2, 1, 3\)"),
        (KEYS[:5], r"N_src = 6 .* got \(5, 2, 1, 3\)"),
        (KEYS[:, :0], r"at least 1, got \(6, 0, 1, 3\)"),
        (KEYS.long(), "float64, float32, bfloat16, float16, got int64"),
        (KEYS.to("meta"), "csc, cpu, got meta"),
    ],
)
def test_bad_keys(keys: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match="op, argument k: .*" + message):
        check_keys("op", keys, CSC)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (KEYS[:, :1], r"\(N, M, H, D\) = \(6, 2, 1, 3\), got \(6, 1, 1, 3\)"),
        (KEYS.double(), "dtype float32, got float64"),
        (KEYS.to("meta"), "device cpu, got meta"),
    ],
)
def test_bad_tensor(x: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match="op, argument v: .*" + message):
        check_tensor(
            "op", "v", x, letters="(N, M, H, D)", shape=(6, 2, 1, 3), dtype=torch.float32, device=torch.device("cpu")
        )


def test_the_message_names_the_argument_that_gives_the_sizes() -> None:
    with pytest.raises(ShapeError, match=r"got \(6, 2, 1, 3\); the sizes follow from csc and x"):
        check_tensor(
            "op", "present", KEYS, letters="(N, M)", shape=(6, 2), dtype=torch.bool, device=KEYS.device, given_by="x"
        )


def test_bad_choice() -> None:
    check_choice("op", "combine", "sum", ("sum", "product"))
    with pytest.raises(ConfigError, match="op, argument combine: unknown combine 'some'; known: product, sum"):
        check_choice("op", "combine", "some", ("sum", "product"))


@pytest.mark.parametrize(
    ("k", "q"),
    [
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_queries_have_the_dtype_of_the_keys_or_float32_beside_half(k: torch.dtype, q: torch.dtype) -> None:
    check_queries("op", "q", torch.zeros(5, 2, 1, 3, dtype=q), k=KEYS.to(k), num_dst=5)


@pytest.mark.parametrize(
    ("k", "q", "message"),
    [
        (torch.float32, torch.float64, "dtype float32, got float64"),
        (torch.float64, torch.float32, "dtype float64, got float32"),
        (torch.bfloat16, torch.float16, "dtype bfloat16, got float16"),
        (torch.bfloat16, torch.float64, "dtype bfloat16, got float64"),
    ],
)
def test_bad_dtype_of_queries(k: torch.dtype, q: torch.dtype, message: str) -> None:
    with pytest.raises(ShapeError, match="op, argument q: .*" + message):
        check_queries("op", "q", torch.zeros(5, 2, 1, 3, dtype=q), k=KEYS.to(k), num_dst=5)


def test_bad_shape_of_queries() -> None:
    with pytest.raises(ShapeError, match=r"op, argument q: .* \(5, 2, 1, 3\), got \(6, 2, 1, 3\)"):
        check_queries("op", "q", KEYS, k=KEYS, num_dst=5)


def test_autocast_casts_only_where_it_is_on() -> None:
    double, mask = KEYS.double(), None
    assert cast_for_autocast(KEYS, double, mask) == (KEYS, double, mask)
    with torch.autocast("cpu", dtype=torch.float16):
        x, y, z = cast_for_autocast(KEYS, double, mask)
    assert x is not None
    assert (x.dtype, y, z) == (torch.float16, double, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        meta = cast_for_autocast(KEYS.to("meta"))[0]
    assert meta is not None
    assert meta.dtype == torch.float32


def test_axes() -> None:
    x = torch.zeros(4, 3)
    check_axes("f", "x", x, (4, "C"), hint="one row a node", dtype=torch.float32)
    with pytest.raises(ShapeError, match=r"f, x: expected shape \(5, C\), got \(4, 3\); one row a node"):
        check_axes("f", "x", x, (5, "C"), hint="one row a node")
    with pytest.raises(ShapeError, match=r"f, x: expected shape \(4,\), got \(4, 3\)"):
        check_axes("f", "x", x, (4,), hint="one row a node")
    with pytest.raises(ShapeError, match="f, x: expected dtype bool, got float32"):
        check_axes("f", "x", x, (4, 3), hint="one row a node", dtype=torch.bool)


def test_classes() -> None:
    check_classes("f", "target", torch.tensor([0, 2]), 3)
    check_classes("f", "target", torch.tensor([], dtype=torch.int64), 3)
    with pytest.raises(ShapeError, match="f, target: expected dtype int64, got int32"):
        check_classes("f", "target", torch.tensor([0], dtype=torch.int32), 3)
    with pytest.raises(ConfigError, match=r"f, target: classes lie in \[0, 3\), got 3 in row 1"):
        check_classes("f", "target", torch.tensor([0, 3, -1]), 3)


def test_numbers() -> None:
    check_number("f", "x", 0.0, low=0, high=1, hint="")
    with pytest.raises(ConfigError, match=r"x: must be a finite number above 0 and at most 1, got 0\.0; 1 is all"):
        check_number("f", "x", 0.0, low=0, high=1, open_low=True, hint="1 is all")
    with pytest.raises(ConfigError, match="f, x: must be a finite number at least 0, got inf"):
        check_number("f", "x", float("inf"), low=0, hint="")
    with pytest.raises(ConfigError, match=r"and at most 1, got 1\.5"):
        check_number("f", "x", 1.5, low=0, high=1, hint="")
