"""One epoch of HGNN-IMA, forward and backward over the full graph: hgmm beside the style of the released code.

Run ``python -m benchmarks.epoch --help``. Both providers get the same graph, features and weights; nothing is
timed before they give the same loss on a small graph in float64. The step is the training step without the optimiser:
dropout on, batch normalisation in training mode, the mean of the fused and the modalities' cross-entropies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks._measure import MODES, Row, Times, environment, interleaved, peak_of, summarise, write_rows
from benchmarks.official_style import OfficialStyleHGNNIMA
from hgmm.dgl_compat import dgl
from hgmm.errors import unknown_name
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph

__all__ = ["PROVIDERS", "EpochConfig", "Problem", "Provider", "main", "make_problem"]

OP = "hgnn_ima_epoch"
TARGET = "item"
CANONICAL_ETYPES = (
    ("item", "has_tag", "tag"),
    ("tag", "tag_of", "item"),
    ("item", "seen_by", "user"),
    ("user", "sees", "item"),
)
MODALITIES = ("text", "image", "numeric")
VARIANT_BY_MODALITIES = {2: "modal2_align", 3: "modal3_align"}
EDGES_PER_NODE = 10
BASELINE = "official-style"
WARMUP = 1
GATE_EDGES = 400
GATE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class EpochConfig:
    """Sizes of one case; ``edges`` are split evenly over four relations between three node types."""

    edges: int
    hidden: int
    heads: int
    layers: int
    modalities: int
    degrees: str
    in_size: int = 64
    classes: int = 3
    seed: int = 0

    @property
    def variant(self) -> str:
        """The released module with this number of modalities."""
        return VARIANT_BY_MODALITIES[self.modalities]


class Problem(NamedTuple):
    """What both providers are given.

    Attributes
    ----------
    graph : dgl.DGLGraph
        Without features.
    features : dict of str to Tensor
        (N, M, in_size) by node type.
    labels : Tensor
        (N_target,) int64.
    """

    graph: Any
    features: dict[str, Tensor]
    labels: Tensor


class Output(Protocol):
    """What a provider's forward returns: the fused logits (n, C) and those of each modality (n, M, C)."""

    @property
    def logits(self) -> Tensor: ...

    @property
    def branch_logits(self) -> Tensor | None: ...


class Provider(NamedTuple):
    """A way to compute the step.

    Attributes
    ----------
    module : str
        Where it lives; the provider is missing if this cannot be found.
    build : callable
        Maps problem, weights under the official names, and sizes to a module and its forward.
    """

    module: str
    build: Callable[[Problem, Mapping[str, Tensor], EpochConfig], tuple[nn.Module, Callable[[], Output]]]

    @property
    def available(self) -> bool:
        """Whether the provider's module can be found."""
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False


def make_problem(config: EpochConfig, dtype: torch.dtype = torch.float32) -> Problem:
    """Draw a graph with ``edges / 10`` nodes, features and labels.

    In-degrees are those of uniform draws, or (``zipf``) of draws with probability proportional to 1 / rank.
    """
    generator = np.random.default_rng(config.seed)
    ntypes = sorted({etype[0] for etype in CANONICAL_ETYPES})
    num_nodes = max(2, config.edges // (EDGES_PER_NODE * len(ntypes)))
    num_edges = config.edges // len(CANONICAL_ETYPES)
    edges = {}
    for etype in CANONICAL_ETYPES:
        chances = np.ones(num_nodes)
        if config.degrees == "zipf":
            chances = generator.permutation(1.0 / np.arange(1, num_nodes + 1))
        dst = generator.choice(num_nodes, num_edges, p=chances / chances.sum())
        src = generator.integers(0, num_nodes, num_edges)
        edges[etype] = (torch.from_numpy(src), torch.from_numpy(dst))
    shape = (num_nodes, config.modalities, config.in_size)
    return Problem(
        graph=dgl.heterograph(edges, num_nodes_dict=dict.fromkeys(ntypes, num_nodes)),
        features={ntype: torch.from_numpy(generator.standard_normal(shape)).to(dtype) for ntype in ntypes},
        labels=torch.from_numpy(generator.integers(0, config.classes, num_nodes)),
    )


def _official_style_model(problem: Problem, config: EpochConfig) -> OfficialStyleHGNNIMA:
    return OfficialStyleHGNNIMA(
        problem.graph.ntypes,
        problem.graph.canonical_etypes,
        variant=config.variant,
        target=TARGET,
        in_size=config.in_size,
        hidden_size=config.hidden,
        num_classes=config.classes,
        num_heads=config.heads,
        num_layers=config.layers,
    )


def _initial_weights(problem: Problem, config: EpochConfig) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _official_style_model(problem, config).state_dict()


def _build_official_style(
    problem: Problem, weights: Mapping[str, Tensor], config: EpochConfig
) -> tuple[nn.Module, Callable[[], Output]]:
    model = _official_style_model(problem, config).to(problem.features[TARGET].dtype)
    model.load_state_dict(dict(weights))
    return model, lambda: model(problem.graph, problem.features)


def _build_hgmm(
    problem: Problem, weights: Mapping[str, Tensor], config: EpochConfig
) -> tuple[nn.Module, Callable[[], Output]]:
    from hgmm.models.official import hgnn_ima_from_state_dict

    graph = _multimodal_graph(problem, config)
    model = hgnn_ima_from_state_dict(dict(weights), graph, config.variant).to(problem.features[TARGET].dtype)
    return model, lambda: model(graph.g)


def _multimodal_graph(problem: Problem, config: EpochConfig) -> MultimodalGraph:
    names = MODALITIES[: config.modalities]
    g = problem.graph.local_var()
    for ntype, values in problem.features.items():
        for m, name in enumerate(names):
            g.nodes[ntype].data[name] = values[:, m].contiguous()
    g.nodes[TARGET].data["label"] = problem.labels
    schema = GraphSchema(
        ntypes=tuple(g.ntypes),
        canonical_etypes=tuple(g.canonical_etypes),
        modalities={ntype: {name: ModalitySpec(name, config.in_size) for name in names} for ntype in g.ntypes},
        target=TARGET,
        classes=tuple(str(label) for label in range(config.classes)),
    )
    return MultimodalGraph(g, schema)


PROVIDERS: dict[str, Provider] = {
    "hgmm": Provider("hgmm.models.official", _build_hgmm),
    BASELINE: Provider("benchmarks.official_style", _build_official_style),
}


def _loss(output: Output, labels: Tensor) -> Tensor:
    parts = [output.logits]
    if output.branch_logits is not None:
        parts += list(output.branch_logits.unbind(1))
    return torch.stack([nn.functional.cross_entropy(part, labels) for part in parts]).mean()


def _step(name: str, problem: Problem, weights: Mapping[str, Tensor], config: EpochConfig) -> Callable[[], Tensor]:
    model, forward = PROVIDERS[name].build(problem, weights, config)
    model.train()

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        return _loss(forward(), problem.labels)

    return step


def _gate_losses(names: list[str], config: EpochConfig) -> dict[str, float]:
    """Give every provider's loss on a small graph, in float64 and without dropout."""
    small = replace(config, edges=GATE_EDGES)
    problem = make_problem(small, torch.float64)
    weights = {name: value.double() for name, value in _initial_weights(problem, small).items()}
    losses = {}
    for name in names:
        model, forward = PROVIDERS[name].build(problem, weights, small)
        model.eval()
        with torch.no_grad():
            losses[name] = _loss(forward(), problem.labels).item()
    return losses


def _check_gate(names: list[str], config: EpochConfig) -> None:
    # The baseline takes part even where it is not timed: one provider alone would agree with itself.
    losses = _gate_losses(list(dict.fromkeys([*names, BASELINE])), config)
    expected = losses[BASELINE]
    wrong = [f"{name} {loss!r}" for name, loss in losses.items() if not abs(loss - expected) <= GATE_TOLERANCE]
    if wrong:
        raise click.ClickException(
            f"providers disagree on the loss of a small graph: {BASELINE} {expected!r}, {', '.join(wrong)}; "
            "nothing was timed"
        )


def _peak_in_fresh_process(name: str, config: EpochConfig) -> float:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(config).items()]
    command = [sys.executable, "-m", "benchmarks.epoch", *options, "--providers", name, "--peak-only"]
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise click.ClickException(
            f"measuring the memory of {name} failed with exit status {result.returncode}:\n{result.stderr.strip()}"
        )
    return float(json.loads(result.stdout)["peak_mib"])


def _measure_peak(name: str, config: EpochConfig) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    small = replace(config, edges=GATE_EDGES)
    tiny = make_problem(small)
    torch.autograd.backward(_step(name, tiny, _initial_weights(tiny, small), small)())
    problem = make_problem(config)
    return peak_of(_step(name, problem, _initial_weights(problem, config), config))


def _rows(times: Mapping[str, Times], peaks: Mapping[str, float], config: EpochConfig, rounds: int) -> list[Row]:
    place = environment()
    sizes = {**asdict(config), "variant": config.variant}
    return [
        Row(
            op=OP,
            provider=name,
            mode=mode,
            dtype="float32",
            sizes=sizes,
            **summarise(measured.of(mode))._asdict(),
            peak_mib=peaks[name] if mode == MODES[-1] else None,
            warmup=WARMUP,
            rounds=rounds,
            **place,
        )
        for name, measured in times.items()
        for mode in MODES
    ]


def _table(rows: list[Row]) -> Table:
    first = rows[0]
    sizes = ", ".join(f"{key} {value}" for key, value in first.sizes.items())
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    table = Table(title=f"{first.op}: {sizes}", caption=f"{first.device}, {first.threads} threads, {versions}")
    table.add_column("provider", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    for name in ("median ms", "p20 ms", "p80 ms", "peak MiB", "times faster", "memory share"):
        table.add_column(name, justify="right")
    baseline = {row.mode: row for row in rows if row.provider == BASELINE}
    for row in rows:
        times = [f"{value:,.1f}" for value in (row.median_ms, row.p20_ms, row.p80_ms)]
        table.add_row(row.provider, row.mode, *times, *_ratios(row, baseline.get(row.mode)))
    return table


def _ratios(row: Row, baseline: Row | None) -> tuple[str, str, str]:
    peak = "" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
    if baseline is None:
        return peak, "", ""
    faster = f"{baseline.median_ms / row.median_ms:.2f}"
    if row.peak_mib is None or not baseline.peak_mib:
        return peak, faster, ""
    return peak, faster, f"{row.peak_mib / baseline.peak_mib:.2f}"


def _chosen(named: str | None) -> list[str]:
    if named is None:
        return [name for name, provider in PROVIDERS.items() if provider.available]
    names = [name.strip() for name in named.split(",")]
    for name in names:
        if name not in PROVIDERS:
            raise click.BadParameter(unknown_name("provider", name, PROVIDERS), param_hint="--providers")
        if not PROVIDERS[name].available:
            raise click.BadParameter(
                f"provider {name!r} needs the module {PROVIDERS[name].module}, which is not installed",
                param_hint="--providers",
            )
    return names


@click.command(help=__doc__)
@click.option("--edges", type=click.IntRange(min=len(CANONICAL_ETYPES)), default=100_000, show_default=True)
@click.option("--hidden", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--heads", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--modalities", type=click.IntRange(2, 3), default=2, show_default=True)
@click.option("--degrees", type=click.Choice(["uniform", "zipf"]), default="uniform", show_default=True)
@click.option("--in-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--classes", type=click.IntRange(min=2), default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--providers", "named", help="Comma-separated; default: all that are installed.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-only", is_flag=True, hidden=True)
def main(rounds: int, named: str | None, json_path: Path | None, peak_only: bool, **sizes: Any) -> None:
    config = EpochConfig(**sizes)
    if config.hidden % config.heads:
        raise click.BadParameter(
            f"must be a multiple of --heads {config.heads}, got {config.hidden}", param_hint="--hidden"
        )
    if json_path is not None and not json_path.parent.is_dir():
        raise click.BadParameter(f"folder {str(json_path.parent)!r} does not exist; create it", param_hint="--json")
    names = _chosen(named)
    if peak_only:
        click.echo(json.dumps({"peak_mib": _measure_peak(names[0], config)}))
        return
    _check_gate(names, config)
    peaks = {name: _peak_in_fresh_process(name, config) for name in names}
    problem = make_problem(config)
    weights = _initial_weights(problem, config)
    times = interleaved({name: _step(name, problem, weights, config) for name in names}, rounds=rounds, warmup=WARMUP)
    rows = _rows(times, peaks, config, rounds)
    Console().print(_table(rows))
    if json_path is not None:
        write_rows(json_path, rows)


if __name__ == "__main__":
    main()
