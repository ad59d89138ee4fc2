from __future__ import annotations

import json
from typing import Any

import pytest

from hgmm.errors import SchemaError
from hgmm.graph import GraphSchema, ModalitySpec

BUYS = ("user", "buys", "item")
TEXT = ModalitySpec("text", 5, "title")


def schema(**options: Any) -> GraphSchema:
    given = {"ntypes": ["item", "user"], "canonical_etypes": [BUYS], "modalities": {"item": {"text": TEXT}}} | options
    return GraphSchema(**given)


def test_defaults_and_order() -> None:
    image = ModalitySpec("image", 3)
    made = schema(modalities={"user": {"image": image}, "item": {"text": TEXT, "image": ModalitySpec("image", 7)}})
    assert made.ntypes == ("item", "user")
    assert made.modality_names == ("text", "image")
    assert made.num_modalities == 2
    assert made.num_classes == 0
    assert made.widths("item") == {"text": 5, "image": 7}
    assert made.widths("user") == {"image": 3}
    assert schema(modality_names=("image", "text")).widths("item") == {"text": 5}


def test_it_survives_json() -> None:
    made = schema(target="item", classes=("a", "b"), relations=("r",), modality_names=("image", "text"))
    assert GraphSchema.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ntypes": [], "canonical_etypes": [], "modalities": {}}, "ntypes: a graph needs at least one node type"),
        ({"ntypes": ["item", "user", "user"]}, "ntypes: 'user' appears twice"),
        ({"canonical_etypes": [BUYS, BUYS]}, r"canonical_etypes: \('user', 'buys', 'item'\) appears twice"),
        (
            {"canonical_etypes": [("usr", "buys", "item")]},
            "unknown node type 'usr'; known: item, user. Did you mean 'user'",
        ),
        ({"modalities": {"thing": {}}}, "modalities: unknown node type 'thing'; known: item, user"),
        ({"modalities": {"item": {"label": TEXT}}}, "modality 'label' of node type 'item': the name is reserved"),
        ({"modalities": {"item": {"text_present": TEXT}}}, "modality 'text_present' of node type 'item'"),
        ({"modalities": {"item": {"": TEXT}}}, "modality '' of node type 'item': the name is reserved"),
        (
            {"modalities": {"item": {"text": TEXT}, "user": {"text": ModalitySpec("image", 5)}}},
            "its kind is 'image' here and 'text' at 'item'",
        ),
        ({"modality_names": ("image",)}, "modality_names: 'text' is missing"),
        ({"modality_names": ("text", "text")}, "duplicate name .*\n.*modality_names: 'text'"),
        ({"target": "thing"}, "target: unknown node type 'thing'; known: item, user"),
        ({"target": "item", "classes": ("a", "a")}, "classes: 'a' appears twice"),
        ({"classes": ("a", "b")}, "class names need a target node type"),
    ],
)
def test_rules(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        schema(**options)


def test_all_findings_are_in_one_message() -> None:
    with pytest.raises(SchemaError, match="GraphSchema: 2 problems found"):
        schema(target="thing", modality_names=("image",))


def test_unknown_node_types_are_told() -> None:
    with pytest.raises(
        SchemaError, match=r"GraphSchema: unknown node type 'itme'; known: item, user. Did you mean 'item'"
    ):
        schema().widths("itme")


@pytest.mark.parametrize("width", [0, -1, 2.0, True, "3"])
def test_widths_of_modalities(width: Any) -> None:
    with pytest.raises(SchemaError, match=f"ModalitySpec width: must be a whole number of at least 1, got {width!r}"):
        ModalitySpec("text", width)


def test_kinds_of_modalities() -> None:
    with pytest.raises(
        SchemaError, match=r"ModalitySpec kind: unknown kind 'txt'; known: categorical, image, .*'text'"
    ):
        ModalitySpec("txt", 3)


def test_dictionaries_that_are_no_schema() -> None:
    data = schema().to_dict()
    with pytest.raises(SchemaError, match="from_dict: unknown key 'etypes'; known: canonical_etypes, classes"):
        GraphSchema.from_dict(data | {"etypes": []})
    spec = {"kind": "text", "width": 3}
    with pytest.raises(SchemaError, match=r"ModalitySpec\.from_dict: unknown key 'widht'; known: kind, source, width"):
        GraphSchema.from_dict(data | {"modalities": {"item": {"text": spec | {"widht": 3}}}})
    with pytest.raises(SchemaError, match=r"ModalitySpec\.from_dict: key 'width' is missing; found: kind"):
        GraphSchema.from_dict(data | {"modalities": {"item": {"text": {"kind": "text"}}}})
    del data["modalities"]
    with pytest.raises(SchemaError, match="from_dict: key 'modalities' is missing; found: canonical_etypes, classes"):
        GraphSchema.from_dict(data)
