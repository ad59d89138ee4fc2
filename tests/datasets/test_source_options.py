from __future__ import annotations

from pathlib import Path

import pytest

from hgmm.datasets import SourceOptions, load
from hgmm.datasets.source_options import choose_file
from hgmm.errors import ConfigError, DataError

FILES = [Path(name) for name in ("M_roberta_base_512_mean.npy", "M_Llama_3.2_1B.npy", "M_Llama_3.2_1B_long.npy")]


def test_entries_are_a_part_and_a_piece_of_a_name() -> None:
    options = SourceOptions.parse(["text = roberta_base", "image=swin*"], split_at=4, shots=3)
    assert options == SourceOptions({"text": "roberta_base", "image": "swin*"}, 4, 3)
    assert options.words() == "text=roberta_base, image=swin*, split_at=4, shots=3"
    assert options
    assert not SourceOptions.parse()


@pytest.mark.parametrize(
    ("entries", "numbers", "message"),
    [
        (["roberta"], {}, r"'roberta' is no choice of a file; write PART=NAME"),
        (["text="], {}, r"'text=' is no choice of a file"),
        (["txet=a"], {}, r"unknown part 'txet'; known: image, joined, split, text. Did you mean 'text'"),
        (["text=a", "text=b"], {}, r"'text' stands twice, as 'a' and 'b'"),
        (["text=a", "joined=b"], {}, r"a joined file holds text and image, got joined, text"),
        ([], {"split_at": 0}, r"data\.split_at: must be at least 1, got 0"),
        ([], {"shots": 0}, r"data\.shots: must be at least 1, got 0"),
    ],
)
def test_wrong_choices_are_named(entries: list[str], numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SourceOptions.parse(entries, **numbers)


@pytest.mark.parametrize(
    ("asked", "default", "expected"),
    [
        ("roberta", "", FILES[0]),
        ("ROBERTA_base", "", FILES[0]),
        ("*512*", "", FILES[0]),
        ("M_Llama_3.2_1B", "", FILES[1]),
        ("m_llama_3.2_1b.npy", "", FILES[1]),
        (None, "roberta", FILES[0]),
    ],
)
def test_a_file_is_found_by_a_part_of_its_name(asked: str | None, default: str, expected: Path) -> None:
    options = SourceOptions({} if asked is None else {"text": asked})
    assert choose_file(FILES, "text", options, default=default) == expected


def test_without_files_there_is_none_and_one_needs_no_choice() -> None:
    assert choose_file([], "text", SourceOptions()) is None
    assert choose_file(FILES[:1], "text", SourceOptions(), default="elsewhere") == FILES[0]


@pytest.mark.parametrize(
    ("asked", "default", "message"),
    [
        ("Llama", "", r"text: 'Llama' fits several files: M_Llama_3\.2_1B\.npy, M_Llama_3\.2_1B_long\.npy; choose one"),
        ("bert5", "", r"text: no file has 'bert5' in its name; there are: M_Llama_3\.2_1B\.npy, .*roberta"),
        (None, "absent", r"text: there are several files: M_Llama_3\.2_1B\.npy, M_Llama.*; choose one with text=NAME"),
    ],
)
def test_what_is_not_clear_is_asked(asked: str | None, default: str, message: str) -> None:
    options = SourceOptions({} if asked is None else {"text": asked})
    with pytest.raises(DataError, match=message):
        choose_file(FILES, "text", options, default=default)


def test_a_dataset_without_a_choice_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"dataset emoji: it offers no choice of files .*, got text=a, shots=2; leave"
    ):
        load("emoji", options=SourceOptions({"text": "a"}, shots=2))
