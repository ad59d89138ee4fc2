from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hgmm.errors import ConfigError, SchemaError, ShapeError
from hgmm.graph import GraphSchema, ModalitySpec
from hgmm.nn import ModalityEncoder

WIDTHS = {"item": {"text": 5, "image": 3}, "user": {"text": 4}, "v1.type": {"image": 3}}
OUT = 6


def encoder(**options: Any) -> ModalityEncoder:
    options = {"input_norm": "none", "output_norm": False, "activation": "tanh", **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ModalityEncoder(WIDTHS, OUT, **options).double()


def features(rows: int = 4) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return {
        ntype: {name: torch.randn(rows, width, generator=generator, dtype=torch.float64) for name, width in own.items()}
        for ntype, own in WIDTHS.items()
    }


def linear(model: ModalityEncoder, ntype: str, modality: str) -> tuple[Tensor, Tensor]:
    own = model.state_dict()
    prefix = f"encoders.node:{ntype.replace('.', '%2E')}.node:{modality}.linear"
    return own[f"{prefix}.weight"], own[f"{prefix}.bias"]


def test_each_type_and_modality_has_its_own_linear() -> None:
    model, x = encoder(), features()
    h = model(x)
    for m, name in enumerate(("text", "image")):
        torch.testing.assert_close(h["item"][:, m], torch.tanh(F.linear(x["item"][name], *linear(model, "item", name))))
    assert model.modality_names == ("text", "image")
    assert h["user"].shape == (4, 2, OUT)
    assert not h["user"][:, 1].any()
    assert not h["v1.type"][:, 0].any()


def test_absent_rows_are_zero_and_do_not_enter_the_batch_statistics() -> None:
    model, x = encoder(input_norm="batch"), features()
    present = {t: torch.ones(4, 2, dtype=torch.bool) for t in WIDTHS}
    present["item"][2, 1] = False
    x["item"]["image"][2] = torch.nan
    h = model(x, present)
    assert not h["item"][2, 1].any()
    rows = x["item"]["image"][[0, 1, 3]]
    alone = encoder(input_norm="batch")({"item": {"text": x["item"]["text"][[0, 1, 3]], "image": rows}})
    torch.testing.assert_close(h["item"][[0, 1, 3], 1], alone["item"][:, 1])
    assert model.state_dict()["encoders.node:item.node:image.input_norm.running_mean"].isfinite().all()


def test_shared_encoder_uses_the_first_columns_for_narrower_modalities() -> None:
    model, x = encoder(shared=True), features()
    weight, bias = linear(model, "item", "")
    assert weight.shape == (OUT, 5)
    h = model(x)["item"]
    torch.testing.assert_close(h[:, 0], torch.tanh(F.linear(x["item"]["text"], weight, bias)))
    torch.testing.assert_close(h[:, 1], torch.tanh(F.linear(x["item"]["image"], weight[:, :3], bias)))


@pytest.mark.parametrize("shared", [True, False])
def test_fill_with_zeros(shared: bool) -> None:
    model = encoder(fill="zeros", shared=shared)
    _, bias = linear(model, "user", "" if shared else "image")
    torch.testing.assert_close(model(features())["user"][:, 1], torch.tanh(bias).expand(4, -1))


@pytest.mark.parametrize("shared", [True, False])
def test_fill_with_a_copy(shared: bool) -> None:
    model, x = encoder(fill="copy:text", shared=shared), features()
    key = "" if shared else "image"
    h = model(x)["user"]
    torch.testing.assert_close(h[:, 1], torch.tanh(F.linear(x["user"]["text"], *linear(model, "user", key))))
    # This type has no text that could be copied.
    _, bias = linear(model, "v1.type", "" if shared else "text")
    torch.testing.assert_close(model(x)["v1.type"][:, 0], torch.tanh(bias).expand(4, -1))


def test_fill_of_single_rows() -> None:
    model, x = encoder(fill="zeros"), features()
    present = {t: torch.ones(4, 2, dtype=torch.bool) for t in WIDTHS}
    present["item"][1, 1] = False
    h = model(x, present)["item"]
    torch.testing.assert_close(h[1, 1], torch.tanh(linear(model, "item", "image")[1]))
    torch.testing.assert_close(h[[0, 2, 3]], model(x)["item"][[0, 2, 3]])


def test_one_row_and_no_row_in_training() -> None:
    model = encoder(input_norm="batch").train()
    assert model(features(1))["item"].isfinite().all()
    assert model(features(0))["item"].shape == (0, 2, OUT)


def test_norms_activation_and_dropout_apply_in_order() -> None:
    model, x = encoder(input_norm=("layer", "batch"), output_norm=True, activation="gelu"), features()
    text = F.linear(F.layer_norm(x["item"]["text"], (5,)), *linear(model, "item", "text"))
    image = x["item"]["image"]
    image = (image - image.mean(0)) / torch.sqrt(image.var(0, unbiased=False) + 1e-5)
    image = F.linear(image, *linear(model, "item", "image"))
    expected = [F.gelu(F.layer_norm(y, (OUT,))) for y in (text, image)]
    torch.testing.assert_close(model(x)["item"], torch.stack(expected, 1))
    dropped = encoder(dropout=0.999).train()(x)["item"]
    assert (dropped == 0).double().mean() > 0.9
    torch.testing.assert_close(encoder(dropout=0.9, input_dropout=0.9).eval()(x), encoder()(x))


def test_takes_a_schema_and_its_order() -> None:
    schema = GraphSchema(
        ("item",), (), {"item": {"text": ModalitySpec("text", 5)}}, modality_names=("image", "text", "numeric")
    )
    model = ModalityEncoder(schema, OUT)
    h = model({"item": {"text": torch.ones(2, 5)}})["item"]
    assert h.shape == (2, 3, OUT)
    assert h.any(2).tolist() == [[False, True, False]] * 2
    filled = ModalityEncoder(schema, OUT, fill="zeros", shared=True, input_norm="none")
    assert filled({"item": {"text": torch.ones(2, 5)}})["item"].shape == (2, 3, OUT)


def test_some_node_types_suffice() -> None:
    assert list(encoder()({"user": features()["user"]})) == ["user"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_norm": "group"}, ConfigError, "unknown input_norm 'group'; known: batch, layer, none"),
        ({"input_norm": ("none",)}, ConfigError, "expected one name or 2, got 1"),
        ({"activation": "swish"}, ConfigError, "unknown activation 'swish'"),
        ({"fill": "mean"}, ConfigError, "unknown fill 'mean'; known: copy:MODALITY, zeros"),
        ({"fill": "copy:sound"}, SchemaError, "fill 'copy:sound': unknown modality 'sound'; known: image, text"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encoder(**options)


def test_no_modality_at_all() -> None:
    with pytest.raises(SchemaError, match="no node type has a modality, got none"):
        ModalityEncoder({"item": {}}, OUT)


def test_wrong_features() -> None:
    x = features()
    with pytest.raises(SchemaError, match="unknown node type 'itme'"):
        encoder()({"itme": x["item"]})
    with pytest.raises(SchemaError, match="unknown modality 'sound'; known: image, text"):
        encoder()({"item": {**x["item"], "sound": x["item"]["text"]}})
    with pytest.raises(SchemaError, match=r"features\['item'\]\['image'\]: it is declared and missing"):
        encoder()({"item": {"text": x["item"]["text"]}})
    with pytest.raises(ShapeError, match=r"\['image'\]: expected shape \(4, 3\), got \(4, 2\)"):
        encoder()({"item": {**x["item"], "image": x["item"]["image"][:, :2]}})
