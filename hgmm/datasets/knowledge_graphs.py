"""The knowledge graphs of MANS and its successors, and FB15k-237: triples in OpenKE's layout."""

from __future__ import annotations

from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.github import github_url
from hgmm.datasets.knowledge_dataset import KnowledgeDataset
from hgmm.datasets.openke import OPENKE_FILES

__all__ = ["Db15kDataset", "Fb15k237Dataset", "Fb15kDataset", "MkgWDataset", "MkgYDataset"]

MANS = "zjukg/MANS"
NATIVE = "zjukg/NATIVE"
OPENKE = "thunlp/OpenKE"
MMKG = "MMKG: Liu et al., Multi-Modal Knowledge Graphs, ESWC 2019, arXiv 1903.05485"
MMRNS = "MMRNS: Xu et al., Relation-enhanced Negative Sampling for Multimodal KGC, ACM Multimedia 2022"

MMKG_URL = "https://github.com/mniepert/mmkb"
NATIVE_URL = f"https://github.com/{NATIVE}"

MMKG_IMAGES = OfficialFile("*ImageData.h5", "image", "entity", MMKG_URL)
SUCCESSORS = (
    OfficialFile("*-visual.pth", "image", "entity", NATIVE_URL),
    OfficialFile("*-textual.pth", "text", "entity", NATIVE_URL),
)


def _info(
    name: str,
    title: str,
    description: str,
    *,
    published: dict[str, int | list[int]],
    citation: str,
    url: str,
    vectors: tuple[OfficialFile, ...] = (),
    licence: str = "not stated by its authors",
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=title,
        description=description,
        task="link-prediction",
        target="entity",
        licence=licence,
        citation=citation,
        url=url,
        ntypes=("entity",),
        published=dict(published),
        official_files=(*map(OfficialFile, OPENKE_FILES), *vectors),
    )


@register
class Db15kDataset(KnowledgeDataset):
    """DBpedia's part of MMKG, in either of its two splits."""

    folders = ("DB15K", "db15k")
    repo, repo_folder = MANS, "benchmarks/DB15K"
    sizes = (79_222, 9_903, 9_903)
    info = _info(
        "db15k",
        "DB15K: DBpedia with images",
        "Which entity completes a triple? Two splits are in use, and both leak: in that of MANS (9,903 test triples) "
        "14.8 % of the test triples are training triples, in that of MMRNS and its successors (9,902) most validation "
        "triples are. --drop-leaks takes them out.",
        # Both splits have as many training triples, repetitions included.
        published={"entity": 12_842, "relations": 279, "triple": 79_222},
        citation=MMKG,
        url=github_url(MANS, "benchmarks/DB15K"),
        vectors=(MMKG_IMAGES,),
        licence="BSD-3-Clause (MMKG)",
    )


@register
class Fb15kDataset(KnowledgeDataset):
    """Freebase's part of MMKG."""

    folders = ("FB15K", "fb15k")
    repo, repo_folder = MANS, "benchmarks/FB15K"
    sizes = (483_142, 50_000, 59_071)
    info = _info(
        "fb15k",
        "FB15K: Freebase with images",
        "Which entity completes a triple? Many test triples are training triples turned round, so that scores are high "
        "without much being learnt; fb15k-237 has none of these.",
        published={"entity": 14_951, "relations": 1_345, "split_sizes": [483_142, 50_000, 59_071]},
        citation=MMKG,
        url=github_url(MANS, "benchmarks/FB15K"),
        vectors=(MMKG_IMAGES,),
        licence="BSD-3-Clause (MMKG)",
    )


@register
class MkgWDataset(KnowledgeDataset):
    """Wikidata's graph of MMRNS."""

    folders = ("MKG-W", "mkg-w")
    repo, repo_folder = NATIVE, "benchmarks/MKG-W"
    sizes = (34_196, 4_276, 4_274)
    info = _info(
        "mkg-w",
        "MKG-W: Wikidata with images and text",
        "Which entity completes a triple? The splits share no triple.",
        published={"entity": 15_000, "relations": 169, "split_sizes": [34_196, 4_276, 4_274]},
        citation=MMRNS,
        url=github_url(NATIVE, "benchmarks/MKG-W"),
        vectors=SUCCESSORS,
    )


@register
class MkgYDataset(KnowledgeDataset):
    """YAGO's graph of MMRNS."""

    folders = ("MKG-Y", "mkg-y")
    repo, repo_folder = NATIVE, "benchmarks/MKG-Y"
    sizes = (21_310, 2_665, 2_663)
    info = _info(
        "mkg-y",
        "MKG-Y: YAGO with images and text",
        "Which entity completes a triple? The splits share no triple.",
        published={"entity": 15_000, "relations": 28, "split_sizes": [21_310, 2_665, 2_663]},
        citation=MMRNS,
        url=github_url(NATIVE, "benchmarks/MKG-Y"),
        vectors=SUCCESSORS,
    )


@register
class Fb15k237Dataset(KnowledgeDataset):
    """Freebase without inverse relations; structure only."""

    folders = ("FB15K237", "FB15k-237", "fb15k-237")
    repo, repo_folder = OPENKE, "benchmarks/FB15K237"
    sizes = (272_115, 17_535, 20_466)
    info = _info(
        "fb15k-237",
        "FB15k-237: Freebase without inverse relations",
        "Which entity completes a triple? Entities have no modality besides the structure, unless you bring vectors.",
        published={"entity": 14_541, "relations": 237, "split_sizes": [272_115, 17_535, 20_466]},
        citation="Toutanova and Chen: Observed versus latent features for KB and text inference, CVSC 2015",
        url=github_url(OPENKE, "benchmarks/FB15K237"),
    )
