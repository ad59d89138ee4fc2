"""Time `translational_score` beside the same composed of PyTorch's gathers and norms.

    python -m benchmarks.translational_score --draws 64,256 --modalities 1,2 --norm 1

Every row of the batch has draws of either side, and all pairs of the modalities are scored. Before anything is timed,
every provider must agree with the reference on a small problem, result and gradients. Then all of them run in turns in
one process; peak memory comes from a fresh process each. `--json` writes one line a provider and mode.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks._measure import (
    MODES,
    Row,
    check_device,
    check_folder,
    choose_providers,
    collect,
    environment,
    interleaved,
    peak_in_fresh_process,
    peak_of,
    summarise,
)
from benchmarks._operators import BACKENDS, HALF, missing_backend
from benchmarks._options import Numbers
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm.kernels import translational_score
from hgmm.kernels.translational_score import NORMS
from hgmm.settings import prefer_large_pages, using_backend

__all__ = ["OP", "PROVIDERS", "Case", "Problem", "check_gate", "main", "measure"]

OP = "translational_score"
PROVIDERS = (*BACKENDS, "torch")
BASES = ("hgmm-cpu", "hgmm-triton")
WARMUP = 1
GATE_BATCH = 16
# Norm of the error over the norm: sums of some hundreds in float32, and gradients that are stored in bfloat16.
GATE_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


@dataclass(frozen=True)
class Case:
    """Sizes of one problem: B rows with K draws of N entities, all pairs of M modalities of D numbers."""

    B: int
    K: int
    N: int
    M: int
    D: int
    norm: str
    device: str = "cpu"
    seed: int = 0

    @property
    def pairs(self) -> int:
        """Distances of a draw."""
        return self.M**2


class Problem:
    """Inputs of a case, rounded to what `stored` holds exactly, and what a provider makes of them."""

    def __init__(self, case: Case, provider: str, stored: torch.dtype = torch.float32) -> None:
        rng = torch.Generator().manual_seed(case.seed)
        self.case, self.provider = case, provider
        query = torch.randn(case.B, 2, case.M, case.D, generator=rng)
        table = torch.randn(case.N, case.M, case.D, generator=rng).to(stored)
        table = table if provider == HALF else table.float()
        self.leaves = [x.to(case.device).requires_grad_() for x in (query, table)]
        entity = torch.randint(case.N, (case.B, case.K), generator=rng)
        side = torch.randint(2, (case.B, case.K), generator=rng, dtype=torch.int8)
        modalities = torch.arange(case.M)
        pairs = torch.cartesian_prod(modalities, modalities).view(1, -1, 2).repeat(2, 1, 1)
        self.ids = [x.to(case.device) for x in (entity, side, pairs)]
        self.grad = torch.randn(case.B, case.K, case.pairs, generator=rng).to(case.device)

    def step(self) -> tuple[Tensor, Tensor]:
        """Clear the gradients and run the forward pass; return the result and its gradient."""
        for leaf in self.leaves:
            leaf.grad = None
        if self.provider == "torch":
            return _composed(*self.leaves, *self.ids, self.case.norm), self.grad
        norm: Any = int(self.case.norm) if self.case.norm.isdigit() else self.case.norm
        with using_backend(BACKENDS[self.provider]):
            return translational_score(*self.leaves, *self.ids, norm), self.grad

    def results(self) -> dict[str, Tensor]:
        """Run a whole step; return the result and the gradients by name."""
        out, grad = self.step()
        out.backward(grad)
        query, table = (leaf.grad.float() for leaf in self.leaves if leaf.grad is not None)
        return {"result": out.detach(), "gradient of query": query, "gradient of table": table}


def _composed(query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, norm: str) -> Tensor:
    """Gather both ends of every distance, as model code does, and take PyTorch's norm of the differences."""
    sides = side.long().unsqueeze(-1)
    a, m = pairs[sides.squeeze(-1)].unbind(-1)
    rows = torch.arange(len(query), device=query.device).view(-1, 1, 1)
    x = query[rows, sides, a] - table[entity.unsqueeze(-1), m]
    if norm == "complex":
        return torch.linalg.vector_norm(x.unflatten(-1, (2, -1)), dim=-2).sum(-1)
    return torch.linalg.vector_norm(x, ord=int(norm), dim=-1)


def _dtype(provider: str) -> str:
    return "bfloat16" if provider == HALF else "float32"


def check_gate(providers: Sequence[str], case: Case) -> None:
    """Compare every provider with the reference on a small problem.

    Raises
    ------
    click.ClickException
        Naming the provider, what differs and by how much.
    """
    small = replace(case, B=min(case.B, GATE_BATCH))
    for provider in providers:
        stored = getattr(torch, _dtype(provider))
        found, expected = (Problem(small, name, stored).results() for name in (provider, "reference"))
        for name, right in expected.items():
            error, limit = float((found[name] - right).norm() / right.norm()), GATE_TOLERANCE[_dtype(provider)]
            if not error <= limit:
                raise click.ClickException(
                    f"{provider} disagrees with the reference: {name} by {error:.2g} of its norm, at most {limit:g} "
                    "is allowed; nothing was timed"
                )


def _peak(provider: str, case: Case) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    Problem(replace(case, B=min(case.B, GATE_BATCH)), provider).results()
    return peak_of(Problem(case, provider).step, case.device)


def measure(case: Case, providers: Sequence[str], rounds: int, *, peaks: bool) -> list[dict[str, Any]]:
    """Time the providers on one case and return a row for each of them and each mode."""
    check_gate(providers, case)
    peak = {}
    for name in providers if peaks else ():
        arguments = ["--peak-of", name, json.dumps(asdict(case))]
        peak[name] = peak_in_fresh_process("benchmarks.translational_score", arguments, name)
    steps: dict[str, Callable[[], Any]] = {name: Problem(case, name).step for name in providers}
    times = interleaved(steps, rounds=rounds, warmup=WARMUP, device=case.device)
    place = environment(case.device)
    sizes = {key: value for key, value in asdict(case).items() if key != "device"}
    return [
        Row(
            op=OP,
            provider=name,
            mode=mode,
            dtype=_dtype(name),
            sizes=sizes | {"P": case.pairs},
            **summarise(times[name].of(mode))._asdict(),
            peak_mib=peak.get(name) if mode == MODES[-1] else None,
            warmup=WARMUP,
            rounds=rounds,
            **place,
            extra={"distances_per_s": _rate(case, times[name].of(mode))},
        ).flat()
        for name in providers
        for mode in MODES
    ]


def _rate(case: Case, seconds: Sequence[float]) -> float:
    return case.B * case.K * case.pairs / (summarise(seconds).median_ms / 1e3)


def show(console: Console, case: Case, rows: list[dict[str, Any]]) -> None:
    """Print the rows of one case as a table."""
    base = next((name for name in BASES if any(row["provider"] == name for row in rows)), None)
    figures = ["median\nms", "p20\nms", "p80\nms", "peak\nMiB", "Mdist\n/s"] + (["/ base"] if base else [])
    table = make_table(["provider", "mode"], figures)
    medians = {row["mode"]: row["median_ms"] for row in rows if row["provider"] == base}
    for row in rows:
        cells = [row["median_ms"], row["p20_ms"], row["p80_ms"], row["peak_mib"], row["distances_per_s"] / 1e6]
        cells += [row["median_ms"] / medians[row["mode"]]] if base else []
        table.add_row(row["provider"] if row["mode"] == MODES[0] else "", row["mode"], *map(figure, cells))
    title = f"{OP}, norm {case.norm}, B x K = {case.B:,} x {case.K}, {case.M} x {case.M} pairs, D = {case.D}"
    caption = f"{rows[0]['device']}, {rows[0]['threads']} threads, {case.N:,} entities"
    print_table(console, table, title=title, caption=caption + (f"; base: {base}" if base else ""))


def _missing(device: str) -> Callable[[str], str | None]:
    return lambda name: None if name == "torch" else missing_backend(BACKENDS[name], OP, device)


@click.command(help=__doc__)
@click.option("--batch", type=click.IntRange(min=1), default=1024, show_default=True, help="Rows B.")
@click.option("--draws", type=Numbers(), default="64,256", show_default=True, help="Draws K of a row.")
@click.option("--modalities", type=Numbers(), default="1,2", show_default=True, help="All pairs of them are scored.")
@click.option("--entities", type=click.IntRange(min=1), default=12_842, show_default=True, help="Those of DB15K.")
@click.option("--width", type=click.IntRange(min=2), default=128, show_default=True, help="D, even for complex.")
@click.option("--norm", type=click.Choice(NORMS), default="1", show_default=True)
@click.option("--providers", "named", help="Comma-separated; default: all that run here.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--no-memory", is_flag=True, help="Leave out peak memory.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", nargs=2, hidden=True)
def main(
    batch: int,
    draws: list[int],
    modalities: list[int],
    entities: int,
    width: int,
    norm: str,
    named: str | None,
    device: str,
    rounds: int,
    no_memory: bool,
    json_path: Path | None,
    peak_of: tuple[str, str] | None,
) -> None:
    prefer_large_pages()
    if peak_of is not None:
        provider, case = peak_of
        click.echo(_peak(provider, Case(**json.loads(case))))
        return
    check_folder(json_path)
    check_device(device)
    if norm == "complex" and width % 2:
        raise click.BadParameter(f"must be even for complex numbers, got {width}", param_hint="--width")
    console = make_console()
    providers = choose_providers(named, PROVIDERS, _missing(device), console)

    def measured() -> Iterator[list[dict[str, Any]]]:
        for K, M in product(draws, modalities):
            case = Case(batch, K, entities, M, width, norm, device)
            rows = measure(case, providers, rounds, peaks=not no_memory)
            show(console, case, rows)
            yield rows

    collect(measured(), json_path)


if __name__ == "__main__":
    main()
