"""Weights of the released codes in our models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError, SchemaError, unknown_name
from hgmm.graph.multimodal import MultimodalGraph
from hgmm.graph.schema import GraphSchema, ModalitySpec
from hgmm.models.hgnn_ima import HGNNIMA
from hgmm.models.mm_kge import MMTransE
from hgmm.models.variants import VARIANTS
from hgmm.nn._names import node_key, relation_key

__all__ = ["RELEASED_VARIANTS", "hgnn_ima_from_state_dict", "mm_transe_from_state_dict"]

RELEASED_VARIANTS = ("modal2_align", "modal2_missing", "modal3_align", "model_modal3")
_MODALITIES = ("text", "image", "numeric")
_ENCODERS = ("adapt_ws_text", "adapt_ws_img", "adapt_ws_s")
_UNUSED = ("linear.", "adapt_ws")
_WHERE = "hgnn_ima_from_state_dict"
_MANS = "mm_transe_from_state_dict"
_MANS_IMAGES = "img_embeddings.weight"
# By our name; the rest of a released state dict is its frozen images and constants of its base class and its loss.
_MANS_NAMES = {
    "structure": "ent_embeddings.weight",
    "relation": "rel_embeddings.weight",
    "projections.0.weight": "img_proj.weight",
    "projections.0.bias": "img_proj.bias",
}
_MANS_UNUSED = ("zero_const", "pi_const", "margin", "embedding_range")


def hgnn_ima_from_state_dict(
    state_dict: Mapping[str, Tensor],
    graph: Any,
    variant: str,
    *,
    target: str | None = None,
    fill: str | None = None,
) -> HGNNIMA:
    """Make an `HGNNIMA` that computes what a released HGNN-IMA module with these weights computes.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        What the released module's ``state_dict()`` returned.
    graph : MultimodalGraph or dgl.DGLGraph
        A graph with the node types and relations that the module was made for. In a plain DGLGraph the frames hold the
        features as ``text``, ``image`` and ``numeric``.
    variant : str
        The module's name: ``modal2_align``, ``modal2_missing``, ``modal3_align`` or ``model_modal3``.
    target : str, optional
        The node type to classify. Default: the schema's; of a plain DGLGraph the only type with data ``label``.
    fill : str, optional
        ``zeros`` (default) or ``copy:text``: what the released loader put where a node type has no features.

    Returns
    -------
    HGNNIMA
        In eval mode, with the dtype of the weights. Modalities are text, image, numeric in the order of the schema.

    Raises
    ------
    ConfigError
        Unknown variant, or weights that are missing, superfluous or of another shape than the graph asks for.
    SchemaError
        The target cannot be told, or the number of modalities or classes is another one.

    Notes
    -----
    The released code numbers node types by name and relations by canonical edge type, both ascending, as DGL does.
    In float64 the logits agree to 1e-10 with the released modules, whose definition is restated in the tests.
    """
    if variant not in RELEASED_VARIANTS:
        raise ConfigError(f"{_WHERE}, variant: {unknown_name('variant', variant, RELEASED_VARIANTS)}")
    sizes = _sizes(state_dict)
    schema = graph.schema if isinstance(graph, MultimodalGraph) else _schema(graph, sizes, target)
    _check_schema(schema, sizes)
    model = HGNNIMA(
        schema,
        variant=variant,
        hidden_size=sizes["hidden_size"],
        num_heads=sizes["num_heads"],
        num_layers=sizes["num_layers"],
        use_norm="gcs.0.norms.0.weight" in state_dict,
        fill=fill,
    ).to(state_dict["predict.weight"].dtype)
    used = _copy(model, state_dict)
    for name in state_dict:
        if name not in used and not name.startswith(_UNUSED) and not name.endswith(".relation_modal"):
            raise ConfigError(
                f"{_WHERE}, state_dict: {name!r} fits nothing in a graph with {len(schema.ntypes)} node types and "
                f"{len(schema.canonical_etypes)} relations; pass the graph that the weights were trained on"
            )
    return model.eval()


def mm_transe_from_state_dict(state_dict: Mapping[str, Tensor], *, images: Tensor | None = None) -> MMTransE:
    """Make an `MMTransE` that scores as the released multimodal TransE of MANS with these weights does.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        What the released module's ``state_dict()`` returned.
    images : Tensor, optional
        ``(E, W)`` image features. Default: those in `state_dict`.

    Returns
    -------
    MMTransE
        In eval mode, with the dtype of the weights and modality ``image``. `MMKGE.score` is minus the released
        distance, for all four pairs; its mode ``cmlp`` is ``pairs=[("structure", "image")]``.

    Raises
    ------
    ConfigError
        A tensor is missing, superfluous, or of another shape than the others ask for.

    Notes
    -----
    In float64 the scores agree to 1e-10 with the released formula, which is restated in the tests. Its image table,
    trained by mistake unless it was frozen before, is a constant here.
    """
    for name in (*_MANS_NAMES.values(), *([_MANS_IMAGES] if images is None else [])):
        if name not in state_dict:
            raise ConfigError(f"{_MANS}, state_dict: {name!r} is missing; pass the state_dict of MANS' MMTransE")
    for name in state_dict:
        if name not in (*_MANS_NAMES.values(), _MANS_IMAGES, *_MANS_UNUSED):
            raise ConfigError(f"{_MANS}, state_dict: {name!r} is no part of MANS' MMTransE; pass its state_dict")
    entities, relations = state_dict["ent_embeddings.weight"], state_dict["rel_embeddings.weight"]
    features = state_dict[_MANS_IMAGES] if images is None else images
    num_entities, dim = entities.shape
    schema = GraphSchema(
        ntypes=("entity",),
        canonical_etypes=(("entity", "triple", "entity"),),
        modalities={"entity": {"image": ModalitySpec("image", int(features.shape[1]))}},
        relations=tuple(map(str, range(len(relations)))),
    )
    model = MMTransE(schema, num_entities, dim=dim).to(entities.dtype)
    state = model.state_dict()
    for ours, released in _MANS_NAMES.items():
        if state_dict[released].shape != state[ours].shape:
            raise ConfigError(
                f"{_MANS}, state_dict: {released!r} has the shape {tuple(state_dict[released].shape)}, the other "
                f"tensors ask for {tuple(state[ours].shape)}; pass weights and images of one model"
            )
    model.load_state_dict({ours: state_dict[released] for ours, released in _MANS_NAMES.items()})
    model.set_features({"image": features})
    return model.eval()


def _sizes(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    for name in ("predict.weight", "gcs.0.relation_pri"):
        if name not in state_dict:
            raise ConfigError(
                f"{_WHERE}, state_dict: {name!r} is missing; pass the state_dict of a released HGNN-IMA module"
            )
    num_classes, hidden_size = state_dict["predict.weight"].shape
    return {
        "num_classes": num_classes,
        "hidden_size": hidden_size,
        "num_heads": state_dict["gcs.0.relation_pri"].shape[1],
        "num_layers": sum(name.startswith("gcs.") and name.endswith(".relation_pri") for name in state_dict),
        "num_modalities": sum(name.startswith("gcs.0.crossmodal.w_m.modal_") for name in state_dict),
    }


def _schema(graph: Any, sizes: Mapping[str, int], target: str | None) -> GraphSchema:
    labelled = [ntype for ntype in graph.ntypes if "label" in graph.nodes[ntype].data]
    if target is None and len(labelled) != 1:
        raise SchemaError(
            f"{_WHERE}, target: exactly one node type must have data 'label', got {labelled}; pass target=NAME"
        )
    names = _MODALITIES[: sizes["num_modalities"]]
    frames = {ntype: graph.nodes[ntype].data for ntype in graph.ntypes}
    return GraphSchema(
        ntypes=tuple(graph.ntypes),
        canonical_etypes=tuple(graph.canonical_etypes),
        modalities={
            ntype: {name: ModalitySpec(name, int(frame[name].shape[1])) for name in names if name in frame}
            for ntype, frame in frames.items()
        },
        target=target or labelled[0],
        classes=tuple(map(str, range(sizes["num_classes"]))),
        modality_names=names,
    )


def _check_schema(schema: GraphSchema, sizes: Mapping[str, int]) -> None:
    for name in ("num_modalities", "num_classes"):
        if getattr(schema, name) != sizes[name]:
            raise SchemaError(
                f"{_WHERE}, graph: {name} must be {sizes[name]} as in state_dict, got {getattr(schema, name)}; "
                "pass the graph that the weights were trained on"
            )


class _Released(NamedTuple):
    """Where a parameter of ours is in the released state dict: tensors, the row taken of each, stacked or one."""

    names: tuple[str, ...]
    row: int | None = None
    stacked: bool = False


def _copy(model: HGNNIMA, source: Mapping[str, Tensor]) -> set[str]:
    """Put the released weights into the model; return the released names used."""
    state = model.state_dict()
    used: set[str] = set()
    for ours, released in (_encoder_names(model) | _layer_names(model) | _output_names()).items():
        if ours not in state:
            continue
        values = [_take(source, name, released.row) for name in released.names]
        value = torch.stack(values) if released.stacked else values[0]
        if value.shape != state[ours].shape:
            raise ConfigError(
                f"{_WHERE}, state_dict: {released.names[0]!r} gives the shape {tuple(value.shape)}, the graph asks for "
                f"{tuple(state[ours].shape)}; pass the graph that the weights were trained on"
            )
        state[ours] = value
        used |= set(released.names)
    model.load_state_dict(state)
    return used


def _take(source: Mapping[str, Tensor], name: str, row: int | None) -> Tensor:
    rows = 0 if name not in source else 1 if row is None else len(source[name])
    if rows <= (row or 0):
        raise ConfigError(
            f"{_WHERE}, state_dict: {name!r} is missing or too short for the graph's types and relations, got "
            f"{rows} rows; pass the graph and the variant that the weights were trained with"
        )
    return source[name] if row is None else source[name][row]


def _both(ours: str, theirs: str) -> dict[str, _Released]:
    return {f"{ours}.{part}": _Released((f"{theirs}.{part}",)) for part in ("weight", "bias")}


def _encoder_names(model: HGNNIMA) -> dict[str, _Released]:
    variant = VARIANTS[model.constructor_args()["variant"]]
    norms = variant.norms(model.schema.num_modalities)
    names: dict[str, _Released] = {}
    for t, ntype in enumerate(sorted(model.schema.ntypes)):
        if variant.shared_encoder:
            names |= _both(f"encoder.encoders.{node_key(ntype)}.{node_key('')}.linear", f"adapt_ws.{t}")
            continue
        for modality, prefix, norm in zip(model.schema.modality_names, _ENCODERS, norms, strict=False):
            ours, theirs = f"encoder.encoders.{node_key(ntype)}.{node_key(modality)}", f"{prefix}.{t}"
            if norm == "none":
                names |= _both(f"{ours}.linear", theirs)
                continue
            names |= _both(f"{ours}.linear", f"{theirs}.1") | _both(f"{ours}.input_norm", f"{theirs}.0")
            for part in ("running_mean", "running_var", "num_batches_tracked"):
                names[f"{ours}.input_norm.{part}"] = _Released((f"{theirs}.0.{part}",))
    return names


def _layer_names(model: HGNNIMA) -> dict[str, _Released]:
    names: dict[str, _Released] = {}
    schema = model.schema
    for layer in range(len(model.convs)):
        for t, ntype in enumerate(sorted(schema.ntypes)):
            ours, theirs = f"convs.{layer}.nodes.{node_key(ntype)}", f"gcs.{layer}"
            for part in ("k", "q", "v", "a"):
                names |= _both(f"{ours}.{part}", f"{theirs}.{part}_linears.{t}")
            names |= _both(f"{ours}.norm", f"{theirs}.norms.{t}")
            names[f"{ours}.skip"] = _Released((f"{theirs}.skip",), t)
        for r, etype in enumerate(sorted(schema.canonical_etypes)):
            ours, theirs = f"convs.{layer}.relations.{relation_key(etype)}", f"gcs.{layer}"
            names[f"{ours}.prior"] = _Released((f"{theirs}.relation_pri",), r)
            names[f"{ours}.node"] = _Released((f"{theirs}.relation_att",), r)
            names[f"{ours}.message"] = _Released((f"{theirs}.relation_msg",), r)
            modal = tuple(f"{theirs}.crossmodal.w_m.modal_{m}" for m in range(schema.num_modalities))
            names[f"{ours}.modal"] = _Released(modal, r, stacked=True)
    return names


def _output_names() -> dict[str, _Released]:
    return _both("fusion.score", "project.1") | _both("classifier", "predict")
