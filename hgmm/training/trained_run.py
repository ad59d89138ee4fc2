"""A finished run, loaded again: predict, embed and evaluate in a new process, on old nodes or new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hgmm import datasets
from hgmm.errors import ConfigError, DataError, SchemaError
from hgmm.graph import GraphSchema, MultimodalGraph
from hgmm.kg import CandidateScorer, TripleSet
from hgmm.registry import MODELS
from hgmm.training._files import read_json
from hgmm.training.checkpoint import load_checkpoint, load_weights
from hgmm.training.completions import Completions, complete, questions_by_name, questions_of
from hgmm.training.config import ModelConfig, RunConfig
from hgmm.training.config_file import read_config
from hgmm.training.conform import conform
from hgmm.training.devices import usable_device
from hgmm.training.evaluation import collect_outputs
from hgmm.training.link_task import make_evaluator, ranking_figures
from hgmm.training.loaders import make_loader, place_graph, prepare_graph
from hgmm.training.predictions import Predictions, predictions_from_output
from hgmm.training.run_record import near_runs
from hgmm.training.task import classification_metrics
from hgmm.typing import NodeOutput

__all__ = ["CONFIG", "DESCRIPTION", "TrainedRun", "describe_model", "graph_sizes", "load_run"]

CONFIG = "config.yaml"
DESCRIPTION = "checkpoint/model.json"
FORMAT_VERSION = 1


def graph_sizes(model: Any, graph: MultimodalGraph) -> dict[str, int]:
    """Return what a model's constructor takes from a graph beside its schema, from its ``graph_sizes``, if any."""
    own = getattr(model, "graph_sizes", None)
    return {} if own is None else own(graph)


def describe_model(model: nn.Module, config: RunConfig, graph: MultimodalGraph) -> dict[str, Any]:
    """Return as JSON data what a checkpoint needs to build the model anew: names, arguments, schema, transforms."""
    own = getattr(model, "constructor_args", None)
    arguments = dict(config.model.options) if own is None else own()
    sizes = graph_sizes(type(model), graph)
    return {
        "format_version": FORMAT_VERSION,
        "model": config.model.name,
        "arguments": {name: value for name, value in arguments.items() if name not in sizes},
        "sizes": sizes,
        "schema": graph.schema.to_dict(),
        "transforms": graph.transforms,
        "entities": [] if graph.triples is None else list(graph.triples.entity_vocab),
        "dataset": graph.name,
        "source": graph.source.to_dict(),
    }


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with everything that its inputs and outputs mean.

    Attributes
    ----------
    path : Path
        The run folder.
    model : torch.nn.Module
        With the best weights, in evaluation mode.
    schema : GraphSchema
        Types, relations, modalities and classes.
    config : RunConfig
        The run's configuration.
    transforms : mapping
        What was fitted to turn columns into features.
    source : mapping
        Where the training data came from, with the checksums of its files.
    entities : tuple of str
        Of a knowledge graph, the entities by id.
    """

    path: Path
    model: nn.Module
    schema: GraphSchema
    config: RunConfig
    transforms: Mapping[str, Any]
    source: Mapping[str, Any]
    entities: tuple[str, ...] = ()

    @property
    def ranks_triples(self) -> bool:
        """Whether the model completes triples; if not, it classifies nodes."""
        return bool(self.entities)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by label."""
        return self.schema.classes

    def load_graph(self, dataset: str | None = None, *, root: str | Path | None = None) -> MultimodalGraph:
        """Load the run's dataset, or another one, with the transforms and classes of this run.

        Parameters
        ----------
        dataset : str, optional
            A name or a folder, taken as it is. Default: what the run was trained on, from the files chosen, without
            leaks and corrupted as it was then.
        root : path, optional
            Folder of official files. Default: the run's.

        Raises
        ------
        DataError
            If it cannot be read, or if no dataset is named and the files are not those of the training any more.
        """
        data = self.config.data
        graph = datasets.load(
            dataset or data.dataset,
            root=root or data.root,
            require_official=data.require_official and dataset is None,
            transforms=self.transforms,
            classes=self.classes,
            options=data.source_options if dataset is None else None,
        )
        if dataset is None:
            self._check_unchanged(graph)
        else:
            data = replace(data, drop_leaks=False, corrupt=())
        dropped = tuple(name for name in data.drop_modalities if name in graph.schema.modality_names)
        return replace(data, drop_modalities=dropped).applied_to(graph)

    def _check_unchanged(self, graph: MultimodalGraph) -> None:
        before, now = self.source.get("sha256", {}), graph.source.sha256
        changed = sorted(name for name in before if name in now and before[name] != now[name])
        if changed:
            raise DataError(
                f"dataset {self.config.data.dataset!r}: changed since the run in {self.path} was trained on it: "
                f"{', '.join(changed)}; name the dataset to use it as it is now (--dataset on the command line)"
            )

    def predict(self, graph: MultimodalGraph) -> Predictions | Completions:
        """Predict the class of every target node, or complete the questions of a knowledge graph's test triples.

        Parameters
        ----------
        graph : MultimodalGraph
            New nodes and edges are welcome, and so are absent modalities, types and relations. A knowledge graph has
            the entities and relations of the training.

        Returns
        -------
        Predictions or Completions
            Of a knowledge graph the ten best answers to each question, as `complete` gives them.

        Raises
        ------
        SchemaError
            If the graph has a type, relation or modality that the model has not seen, or another width or target.
        DataError
            If features were fitted on other data than the model's.
        """
        if self.ranks_triples:
            triples = self._triples(graph)
            return self._complete(graph, questions_of(triples.test), top=10, known=False)
        known = self._conform(graph)
        output = self._outputs(known, torch.arange(known.num_nodes(known.target)))
        return predictions_from_output(output, known, classes=self.classes, modality_names=self.schema.modality_names)

    def complete(
        self,
        graph: MultimodalGraph,
        questions: Sequence[tuple[str | None, str, str | None]],
        *,
        top: int = 10,
        known: bool = False,
    ) -> Completions:
        """Say which entities complete triples best.

        Parameters
        ----------
        graph : MultimodalGraph
            The knowledge graph, with the entities and relations of the training.
        questions : sequence of (str or None, str, str or None)
            Names of head, relation and tail, None for the end that is asked for.
        top : int, optional
            Answers a question, at least 1.
        known : bool, optional
            Whether answers may be what training triples say. Default: these are left out.

        Raises
        ------
        ConfigError
            If the model classifies nodes, a name is unknown, or a question has not exactly one None at its ends.
        SchemaError
            If the graph has other entities or relations.
        """
        return self._complete(graph, questions_by_name(questions, self._triples(graph)), top=top, known=known)

    def _complete(self, graph: MultimodalGraph, questions: Tensor, *, top: int, known: bool) -> Completions:
        triples = self._triples(graph)
        prepare_graph(self.model, graph)
        scorer = self._scorer()
        return complete(scorer, triples, questions, top=top, source=graph.source.source, known=known)

    def _scorer(self) -> CandidateScorer:
        scorer: CandidateScorer = self.model.candidates()  # type: ignore[operator]  # models of triples have it
        return scorer

    def _triples(self, graph: MultimodalGraph) -> TripleSet:
        """Check that a graph has what the model knows and return its triples."""
        if not self.ranks_triples:
            raise ConfigError(f"TrainedRun: model {self.config.model.name!r} classifies nodes; use predict")
        triples = graph.triples
        if triples is None or (triples.entity_vocab, triples.relation_vocab) != (self.entities, self.schema.relations):
            what = "no triples" if triples is None else "other entities or relations"
            raise SchemaError(
                f"graph {graph.name!r} for the trained model: it has {what} than the {len(self.entities):,} entities "
                "of the training, which the model has vectors of; train on it"
            )
        return triples

    def embed(self, graph: MultimodalGraph) -> tuple[list[str], NDArray[Any]]:
        """Return ids and ``(n, F)`` float32 embeddings of all target nodes, or of all entities.

        An entity's vectors of all modalities stand side by side, structure first; 0 where it lacks one.

        Raises
        ------
        SchemaError, DataError
            As `predict`.
        ConfigError
            If the model gives no embeddings.
        """
        if self.ranks_triples:
            triples = self._triples(graph)
            prepare_graph(self.model, graph)
            with torch.no_grad():
                vectors: Tensor = self.model.project()  # type: ignore[operator]  # models of triples have it
                vectors = vectors.masked_fill(~self.model.present.unsqueeze(2), 0)  # type: ignore[operator]
            return list(triples.entity_vocab), vectors.flatten(1).cpu().float().numpy()
        known = self._conform(graph)
        output = self._outputs(known, torch.arange(known.num_nodes(known.target)))
        if "embedding" not in output.aux:
            raise ConfigError(f"TrainedRun.embed: model {self.config.model.name!r} gives no embedding; use predict")
        return list(known.node_ids[known.target]), output.aux["embedding"].float().numpy()

    def evaluate(self, graph: MultimodalGraph, *, split: str | None = None) -> dict[str, float]:
        """Return ``accuracy``, ``micro_f1`` and ``macro_f1``, or of a knowledge graph the figures of its ranking.

        Parameters
        ----------
        graph : MultimodalGraph
            With labels.
        split : str, optional
            ``train``, ``val`` or ``test``. Default: ``test`` if the graph has test nodes, else all labelled nodes.

        Raises
        ------
        SchemaError
            As `predict`; or if there is no labelled node, or a label of a class that the model does not know.
        DataError
            As `predict`.
        """
        if self.ranks_triples:
            triples = self._triples(graph)
            rows = triples.splits[split or "test"]
            if not len(rows):
                raise SchemaError(f"TrainedRun.evaluate graph: {graph.name!r} has no triples in {split or 'test'!r}")
            prepare_graph(self.model, graph)
            return ranking_figures(self.model, make_evaluator(triples), rows)
        known = self._conform(graph)
        lost = int((graph.labels >= 0).sum() - (known.labels >= 0).sum())
        if lost:
            strange = sorted(set(graph.schema.classes) - set(self.classes))
            raise SchemaError(
                f"TrainedRun.evaluate graph: {lost} labels are of classes that the model does not know: "
                f"{', '.join(strange)}; known: {', '.join(self.classes)}"
            )
        if split is None and not len(known.test_idx):
            nodes = (known.labels >= 0).nonzero(as_tuple=True)[0]
        else:
            nodes = known.split(split or "test")
        if not len(nodes):
            where = "" if split is None else f" in split {split!r}"
            raise SchemaError(f"TrainedRun.evaluate graph: {graph.name!r} has no labelled node{where}; give it labels")
        return classification_metrics(self._outputs(known, nodes).logits, known.labels[nodes])

    def _conform(self, graph: MultimodalGraph) -> MultimodalGraph:
        return prepare_graph(self.model, conform(graph, self.schema, self.transforms))

    def _outputs(self, graph: MultimodalGraph, nodes: Tensor) -> NodeOutput:
        train = self.config.train
        device = usable_device(train.device)
        if not train.batch_size:
            graph = place_graph(graph, device)
        return collect_outputs(self.model, make_loader(graph, nodes, train, device=device, training=False))


def load_run(path: str | Path, *, device: str | None = None) -> TrainedRun:
    """Load a run from its folder, in any process that has hgmm.

    Parameters
    ----------
    path : path
        The run folder.
    device : str, optional
        ``auto``, ``cpu`` or ``cuda``. Default: the run's.

    Raises
    ------
    DataError
        If the folder holds no run, no weights yet, a broken file, or weights of another version of the model.
    ConfigError
        If the model is not registered here or has lost an option, or a GPU is asked for that torch does not see.
    """
    path = Path(path)
    if not (path / CONFIG).exists():
        raise DataError(f"{path}: it has no {CONFIG}; name the folder that a run has written.{near_runs(path)}")
    several = sorted(folder.name for folder in path.glob("seed-*"))
    if several:
        raise DataError(f"{path}: it holds several runs; name one of their folders: {', '.join(several)}")
    settings = read_config(path / CONFIG)
    if device is not None:
        settings = RunConfig.merge(settings, {"train.device": device})
    config = RunConfig.from_dict(settings)
    found = load_checkpoint(path / "checkpoint")
    if found is None or not found[0].best:
        raise DataError(
            f"{path}: the run has no weights yet; resume it with train_run(run_dir=..., resume=True), or with "
            f"hgmm train --run-dir {path} --resume"
        )
    description = _read_description(path / DESCRIPTION)
    schema = GraphSchema.from_dict(description["schema"])
    options = ModelConfig(description["model"], description["arguments"]).complete().options
    model = MODELS.get(description["model"])(schema, **description.get("sizes", {}), **options)
    load_weights(model, found[0].best, folder=path / "checkpoint")
    model.to(usable_device(config.train.device)).eval()
    entities = tuple(description.get("entities", ()))
    return TrainedRun(path, model, schema, config, description["transforms"], description["source"], entities)


def _read_description(path: Path) -> dict[str, Any]:
    description = read_json(path)
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: format_version must be {FORMAT_VERSION}, got {version!r}; use the hgmm that wrote it")
    for key in ("model", "arguments", "schema", "transforms", "source"):
        if key not in description:
            raise DataError(f"{path}: key {key!r} is missing; restore the file or start the run anew")
    return dict(description)
