from __future__ import annotations

import pytest

from hgmm.kernels import COMBINES
from hgmm.models import HGNNIMA
from hgmm.models.variants import VARIANTS


def test_table_is_the_contracts() -> None:
    rows = {name: (row.combine, row.scale, row.temperature, row.prior) for name, row in VARIANTS.items()}
    assert rows == {
        "sharp": ("sharp", True, 1.0, True),
        "modal2_align": ("product", True, 1.0, True),
        "modal2_missing": ("product", False, 100.0, True),
        "modal3_align": ("sum", True, 1.0, True),
        "model_modal3": ("b1", True, 1.0, True),
        "poster": ("poster", False, 1.0, False),
    }
    assert {row.combine for row in VARIANTS.values()} <= set(COMBINES)
    assert HGNNIMA.variants == tuple(VARIANTS)
    assert [name for name, row in VARIANTS.items() if row.fill is None] == ["sharp"]
    assert [name for name, row in VARIANTS.items() if not row.modal_by_modality] == ["poster"]


@pytest.mark.parametrize("num_modalities", [1, 2, 4])
def test_input_norms_follow_the_position(num_modalities: int) -> None:
    assert VARIANTS["modal3_align"].norms(num_modalities) == ("batch",) * num_modalities
    assert VARIANTS["model_modal3"].norms(num_modalities) == ("batch", "batch", "none", "none")[:num_modalities]
