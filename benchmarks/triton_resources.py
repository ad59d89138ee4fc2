"""Compile the Triton kernels ahead of time, without a GPU, and report what each takes of a multiprocessor.

python -m benchmarks.triton_resources --arch 90 --json FILE

Every declared tile of every kernel that one forward and backward pass launches is compiled as CUDA would compile it:
arguments, dtypes and constants are those of the launch. Columns: edges of a tile, warps, registers a thread, bytes of
shared memory, bytes of stack, instructions that move spilled registers, and the widest load. `default` is the tile that
runs where none is timed. The exit code is 1 if a default tile spills.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import click
import torch
import triton
from rich.console import Console
from rich.table import Table
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

from benchmarks._measure import environment, write_rows
from hgmm.graph.csc import build_csc
from hgmm.kernels import OPERATORS
from hgmm.kernels import _triton_rows as rows
from hgmm.kernels._triton import interpreted
from hgmm.kernels.cross_modal_attention import triton_kernels as cross_modal
from hgmm.kernels.cross_modal_attention.inputs import Options
from hgmm.kernels.inter_node_attention import triton_kernels as inter_node
from hgmm.kernels.neighbor_mean import triton_kernels as neighbor
from hgmm.kernels.translational_score import NORMS, TranslationalInputs
from hgmm.kernels.translational_score import triton_kernels as translational
from hgmm.typing import RelationCSC

__all__ = ["Resources", "compile_launch", "launches", "main"]

ARCHITECTURES = (80, 90, 100)
# Placed as CUDA's allocator places tensors.
ALIGNMENT = 16
_TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
    torch.int8: "i8",
}


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes."""

    kernel: str
    sweeps: str
    edges: int
    warps: int
    default: bool
    arch: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    spills: int
    load_bits: int
    atomics: int


def _star(num_others: int) -> RelationCSC:
    """Return a relation in which node 0 of either side has a row that is long enough to be split."""
    many, zero = torch.arange(num_others), torch.zeros(num_others, dtype=torch.int64)
    csc, _ = build_csc(torch.cat([many, zero]), torch.cat([zero, many]), num_src=num_others, num_dst=num_others)
    return csc


def launches(op: str, M: int, H: int, D: int, *, combine: str = "product") -> list[rows.Launch]:
    """Record what one forward and backward pass would launch: a mask, long rows, every gradient."""
    if interpreted():
        raise click.ClickException("TRITON_INTERPRET is set, so nothing would be compiled; unset it")
    nodes = rows.LONGEST_ROW + 8
    csc, present = _star(nodes), torch.ones(nodes, M, dtype=torch.bool)
    x, heads, flat = torch.zeros(nodes, M, H, D), torch.zeros(nodes, M, H), torch.zeros(nodes, M, H * D)
    with rows.recorded() as found:
        if op == "translational_score":
            _launch_scores(M, H * D)
        elif op == "cross_modal_attention":
            options = Options(combine, True, 1.0, False, False)
            weight = torch.zeros(nodes, M)
            _, _, _, stats = cross_modal.forward(csc, x, x, x, x, present, weight, options, True)
            cross_modal.backward(csc, x, x, x, x, present, weight, options, x, stats, x, heads, True, True)
        elif op == "inter_node_attention":
            bias = torch.zeros(csc.num_edges, M, H)
            inter_node.forward(csc, x, x, x, present, bias, 0.1, 1, True)
            inter_node.backward(csc, x, x, x, present, bias, 0.1, 1, x, heads, x, True, True, True)
        else:
            weight = torch.zeros(csc.num_edges, 1)
            _, total = neighbor.forward(csc, flat, present, weight, True)
            neighbor.backward(csc, flat, present, weight, True, flat, total, flat, True, True)
    return found


def _launch_scores(M: int, D: int) -> None:
    """Launch every norm for all pairs of M modalities, with an entity that is drawn often enough to be split."""
    batch, draws = 8, rows.LONGEST_ROW + 8
    side = torch.zeros(batch, draws, dtype=torch.int8)
    pairs = torch.cartesian_prod(torch.arange(M), torch.arange(M)).view(1, M * M, 2).repeat(2, 1, 1)
    out, nothing = torch.zeros(batch, draws, M * M), torch.zeros(0, dtype=torch.int32)
    vectors = torch.zeros(batch, 2, M, D), torch.zeros(4, M, D)
    for norm in NORMS:
        inputs = TranslationalInputs(*vectors, side.long(), side, pairs, norm)
        translational.forward(inputs, nothing)
        translational.backward(inputs, nothing, out, out, True, True)


def _source(launch: rows.Launch) -> ASTSource:
    signature, constants, attributes = {}, {}, {}
    for place, (name, parameter) in enumerate(zip(launch.kernel.arg_names, launch.kernel.params, strict=True)):
        value = launch.arguments[name]
        if parameter.is_constexpr:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name], attributes[(place,)] = f"*{_TYPES[value.dtype]}", [["tt.divisibility", ALIGNMENT]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i64" if abs(value) >= 2**31 else "i32"
    return ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)


def _output(tool: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout


def compile_launch(launch: rows.Launch, arch: int) -> Resources:
    """Compile one launch for a compute capability, as 90 for sm_90, and read what it takes."""
    assert isinstance(launch.kernel, JITFunction)
    compiled = triton.compile(_source(launch), GPUTarget("cuda", arch, 32), launch.options)
    with NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        usage, code = _output("cuobjdump", "-res-usage", file.name), _output("nvdisasm", "-c", file.name)
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED):(\d+)", usage)}
    widths = [int(width) for width in re.findall(r"\bLDG\.E\S*?\.(64|128)\b", code)]
    return Resources(
        kernel=launch.kernel.__name__.lstrip("_"),
        sweeps=_sweeps(launch),
        edges=launch.arguments["BE"],
        warps=launch.options["num_warps"],
        default=launch.default,
        arch=arch,
        registers=found["REG"],
        shared_bytes=found["SHARED"],
        stack_bytes=found["STACK"],
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)),
        load_bits=max(widths, default=32),
        atomics=len(re.findall(r"\b(?:ATOM|ATOMG|ATOMS|RED)\b", code)),
    )


def _sweeps(launch: rows.Launch) -> str:
    """Name what the constants switch on, as ``statistics+values`` of the forward pass or ``split``."""
    names = ("STATISTICS", "SOFTMAX_B1", "VALUES", "FIRST", "SECOND", "QUERIES", "BACKWARD", "ROOT", "COMPLEX", "SPLIT")
    return "+".join(name.lower() for name in names if launch.arguments.get(name) is True)


def _table(title: str, found: Sequence[Resources]) -> Table:
    table = Table(title=title)
    for name in ("kernel", "edges", "warps", "regs", "smem", "stack", "spills", "load"):
        table.add_column(name, justify="left" if name == "kernel" else "right", no_wrap=name != "kernel")
    for x in found:
        numbers = (x.edges, x.warps, x.registers, x.shared_bytes, x.stack_bytes, x.spills, x.load_bits)
        name = f"{x.kernel}: {x.sweeps}" if x.sweeps else x.kernel
        table.add_row(name, *map(str, numbers), style="bold" if x.default else None)
    return table


@click.command(help=__doc__)
@click.option("--arch", "architectures", type=int, multiple=True, default=ARCHITECTURES, show_default=True)
@click.option("--op", "operators", type=click.Choice(OPERATORS), multiple=True, default=OPERATORS, show_default=True)
@click.option("--shape", "shapes", default="3x4x16,3x4x32", show_default=True, help="Comma-separated MxHxD.")
@click.option("--combine", default="product", show_default=True, help="Row of cross_modal_attention's table.")
@click.option("--default-only", is_flag=True, help="Leave out the tiles that only tuning tries.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
def main(
    architectures: Sequence[int],
    operators: Sequence[str],
    shapes: str,
    combine: str,
    default_only: bool,
    json_path: Path | None,
) -> None:
    console, place = Console(), environment()
    place["versions"]["triton"] = triton.__version__
    rows_found = []
    for arch in architectures:
        for op in operators:
            for M, H, D in (tuple(map(int, shape.split("x"))) for shape in shapes.split(",")):
                wanted = [
                    launch for launch in launches(op, M, H, D, combine=combine) if launch.default or not default_only
                ]
                found = list(dict.fromkeys(compile_launch(launch, arch) for launch in wanted))
                console.print(_table(f"{op}, M x H x D = {M} x {H} x {D}, sm_{arch}", found))
                sizes = {"op": op, "M": M, "H": H, "D": D, "dtype": "float32", "combine": combine}
                rows_found += [{**sizes, **asdict(x), **place} for x in found]
                if json_path is not None:
                    write_rows(json_path, rows_found)
    if any(row["default"] and (row["spills"] or row["stack_bytes"]) for row in rows_found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
