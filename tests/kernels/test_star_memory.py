"""A million edges in one row take no memory by edge, and at most 4 MiB of scratch a thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hgmm import kernels
from hgmm.kernels import _native

THREADS = 2
SCRATCH_MIB = 4.0
# Sums by part of a long row, results of a few nodes, torch's own objects; a float for each edge would take 3.8.
REST_MIB = 3.0
# Of translational_score: three tensors of a number a distance, the signs of its few differences in a word and a byte,
# and the draws' order by entity.
DISTANCES_MIB = 3 * 3.8 + 3.8 + 1 + 7.7

# In a process of its own: what an allocator keeps from earlier steps would hide what this step needs.
SCRIPT = """
import json
import sys

import torch

from benchmarks._measure import peak_of
from hgmm import kernels
from hgmm.graph.csc import build_csc

op, inwards = sys.argv[1], sys.argv[2] == "in"
torch.set_num_threads(int(sys.argv[3]))
edges, few = 1_000_000, 64
many, one = torch.arange(edges) % few, torch.zeros(edges, dtype=torch.int64)
src, dst = (many, one) if inwards else (one, many)


def step_on(src, dst):
    csc, _ = build_csc(src, dst, num_src=few, num_dst=few)
    x = [torch.randn(few, 3, 4, 16, requires_grad=True) for _ in range(4)]

    def step():
        if op == "cross_modal_attention":
            out = kernels.cross_modal_attention(csc, *x, combine="product").out
        elif op == "inter_node_attention":
            out = kernels.inter_node_attention(csc, *x[:3]).out
        else:
            out = kernels.neighbor_mean(csc, x[0].flatten(2))
        return out.sum()

    return step


def step_on_draws(count):
    # One query with all draws, of a few entities, or one entity in all draws of a few queries.
    batch = 1 if inwards else few
    query = torch.randn(batch, 2, 2, 64, requires_grad=True)
    table = torch.randn(few, 2, 64, requires_grad=True)
    entity = (torch.arange(count) % few if inwards else torch.zeros(count, dtype=torch.int64)).view(batch, -1)
    side = torch.zeros(entity.shape, dtype=torch.int8)
    pairs = torch.zeros(2, 1, 2, dtype=torch.int64)
    return lambda: kernels.translational_score(query, table, entity, side, pairs).sum()


if op == "translational_score":
    peak_of(step_on_draws(few))
    print(json.dumps(peak_of(step_on_draws(edges))))
    raise SystemExit

# Threads and libraries are set up by a small relation.
peak_of(step_on(src[:9], dst[:9]))
print(json.dumps(peak_of(step_on(src, dst))))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.skipif(_native.missing_reason() is not None, reason="the compiled kernels are missing")
@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("op", sorted(kernels.OPERATORS))
def test_a_star_takes_scratch_only(op: str, direction: str) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", SCRIPT, op, direction, str(THREADS)]
    # Larger blocks go back to the system when they are freed, so that the warm-up hides none.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "THP_MEM_ALLOC_ENABLE": "0"}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    distances = DISTANCES_MIB if op == "translational_score" else 0.0
    assert json.loads(result.stdout) <= THREADS * SCRATCH_MIB + REST_MIB + distances
