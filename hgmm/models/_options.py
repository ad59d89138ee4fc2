"""What the options of HGNN-IMA may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hgmm.errors import ConfigError, SchemaError, unknown_name
from hgmm.graph.schema import GraphSchema
from hgmm.losses.missing_modality import FORMS
from hgmm.models.variants import ABLATIONS, VARIANTS
from hgmm.nn import KV_DTYPES

__all__ = ["check_options"]


def check_options(schema: GraphSchema, args: Mapping[str, Any]) -> None:
    """Check the schema and the constructor's arguments, whose defaults may still be None.

    Raises
    ------
    ConfigError
        An option is unknown or out of range, or does not fit the others.
    SchemaError
        The schema has no target or no classes.
    """
    if schema.target is None or not schema.classes:
        raise SchemaError(
            f"HGNNIMA, schema: needs a target node type with classes, got target={schema.target!r} and "
            f"{len(schema.classes)} classes; name them in the schema"
        )
    if isinstance(args["ablate"], str):
        raise ConfigError(f"HGNNIMA, ablate: expected a list of names, got {args['ablate']!r}; put it into a list")
    choices: list[tuple[str, str, tuple[str, ...]]] = [
        ("variant", args["variant"], tuple(VARIANTS)),
        ("missing_attention_form", args["missing_attention_form"], FORMS),
        *(("ablate", name, ABLATIONS) for name in args["ablate"]),
        *([] if args["kv_dtype"] is None else [("kv_dtype", args["kv_dtype"], tuple(KV_DTYPES))]),
    ]
    for name, value, known in choices:
        if value not in known:
            raise ConfigError(f"HGNNIMA, {name}: {unknown_name(name, value, known)}")
    if {"cross", "inf"} <= set(args["ablate"]):
        raise ConfigError(f"HGNNIMA, ablate: 'cross' and 'inf' exclude each other, got {args['ablate']}; choose one")
    if args["num_layers"] < 1:
        raise ConfigError(f"HGNNIMA, num_layers: must be at least 1, got {args['num_layers']}")
    for name, value in args.items():
        if name.endswith("dropout") and value is not None and not 0 <= value < 1:
            raise ConfigError(f"HGNNIMA, {name}: must be at least 0 and below 1, got {value}")
    if VARIANTS[args["variant"]].fill is None:
        if args["fill"] is not None:
            raise ConfigError(
                f"HGNNIMA, fill: variant {args['variant']!r} masks absent modalities, got {args['fill']!r}; "
                "leave fill out or choose a variant that fills"
            )
    elif args["modality_dropout"]:
        raise ConfigError(
            f"HGNNIMA, modality_dropout: variant {args['variant']!r} does not mask modalities, got "
            f"{args['modality_dropout']}; set it to 0 or choose variant 'sharp'"
        )
