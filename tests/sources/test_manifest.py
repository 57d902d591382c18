"""Manifests as spreadsheets and scripts write them: read as they mean it, or refused with what to write."""

from pathlib import Path
from typing import Any

import pytest

from mlspark.errors import SourceError
from mlspark.sources import manifest
from mlspark.sources.picture_settings import ManifestSettings


def read(folder: Path, content: bytes) -> dict[str, list[Any]]:
    (folder / "m.csv").write_bytes(content)
    settings = ManifestSettings(path="m.csv")
    found: dict[str, list[Any]] = manifest.read(
        manifest.part(settings, str(folder)), settings, name="path", taken=("image",)
    ).to_pydict()
    return found


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"\xef\xbb\xbfpath,label\na.jpg,x\n", ["a.jpg"]),
        (b"path,label\r\n\r\na.jpg,x\r\n", ["a.jpg"]),
        (b"path,n\n./a/1.jpg,x\n.//./b.jpg,x\n.x/c.jpg,x\n../d.jpg,x\n,x\n",
         ["a/1.jpg", "b.jpg", ".x/c.jpg", "../d.jpg", None]),
        (b'path,label\na.jpg,"' + b"x" * 3_000_000 + b'"\nb.jpg,x\n', ["a.jpg", "b.jpg"]),
        ("path,label\nÄ €.jpg,x\n".encode(), ["Ä €.jpg"]),
    ],
)  # fmt: skip
def test_paths_are_read(tmp_path: Path, content: bytes, paths: list[str | None]) -> None:
    assert read(tmp_path, content)["path"] == paths


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\né.jpg,x\n".encode("latin-1"), "m.csv: is not UTF-8 at byte 11; write the manifest in UTF-8"),
        ("path,label\na.jpg,x\n".encode("utf-16"), "m.csv: is not UTF-8 at byte 0; write the manifest in UTF-8"),
        (b"path;label\na.jpg;x\n", "has no column 'path' but path;label; set manifest.column"),
        (b"path,Path\na,b\n", "columns Path, path stand there twice"),
        (b"path,_mlspark_malformed\na,b\n", r"columns _mlspark_malformed .* rename them in the manifest"),
        (b"path,label\na.jpg\n", "cannot be read as csv .* each line has as many fields as the first"),
        (b'path,label\n"a.jpg,x\n', "cannot be read as csv"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, content)
