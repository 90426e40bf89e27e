"""What the catalogue says about one dataset, and how an entry is read. Imports the exception tree only.

An entry is a file in ``entries/``. What nobody has published is None and is shown as unknown: sizes and
checksums are never guessed.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from lesion_triage.errors import DataError


def _require_relative(path: str) -> str:
    """A relative path with forward slashes that does not leave its folder."""
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"'{path}' must be a relative path without '..'")
    return path


RelativePath = Annotated[str, AfterValidator(_require_relative)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of an entry: frozen, with unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Licence(Part):
    """The terms under which the pictures are available."""

    id: str
    """SPDX identifier if there is one, else LicenseRef-...; the value for ``--accept-licence``."""
    name: str
    url: Url
    redistribution: Literal["yes", "no", "unclear"]
    commercial_use: Literal["yes", "no", "unclear"]
    note: str = ""


class RemoteFile(Part):
    """One file that the publisher offers."""

    name: RelativePath
    """Where it is stored, relative to the dataset's folder."""
    urls: tuple[Url, ...] = ()
    """Official addresses, tried in order. None: obtained by hand, or listed by `Figshare`."""
    size_bytes: Count | None = None
    """As published, to the byte: a file of another size is refused."""
    about_bytes: Count | None = None
    """As rounded by the publisher or seen by others: for planning, never for refusing."""
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    checksum_from: str = ""
    """Who published the checksum. Without one, the first download's hash is recorded and trusted."""
    optional: bool = False
    """Fetched only if asked for by name."""

    @model_validator(mode="after")
    def _checksum_has_a_source(self) -> Self:
        if bool(self.sha256 or self.md5) != bool(self.checksum_from):
            raise ValueError(f"{self.name}: a checksum and who published it belong together")
        return self

    @property
    def planned_bytes(self) -> int | None:
        """The exact size if known, else the rounded one, else None."""
        return self.about_bytes if self.size_bytes is None else self.size_bytes


class Listed(Part):
    """Pictures that are published one by one and named by a table of the dataset."""

    table: RelativePath
    columns: tuple[str, ...]
    base_url: Url
    """What to put before a name from the table."""
    about_bytes: Count | None = None


class Table(Part):
    """A table of the official layout."""

    names: tuple[RelativePath, ...] = Field(min_length=1)
    """Its known names, relative to the dataset's folder; a bare name is found in sub-folders too."""
    columns: tuple[str, ...] = ()
    """Columns without which it cannot be read. Empty: it is not a text file with a header."""
    rows: Count | None = None
    """As published."""
    required: bool = True
    picture_columns: tuple[str, ...] = ()
    """Columns that name pictures, with or without folder and ending."""
    one_picture: bool = False
    """Whether those columns are several names of one picture, of which one is enough."""


class Pictures(Part):
    """Where the pictures of a layout are."""

    endings: tuple[str, ...] = (".jpg", ".jpeg", ".png")
    pattern: str = ""
    """File name pattern by which pictures are counted; empty if a table names them."""
    by_path: bool = False
    """Whether the table has paths from the dataset's folder, so that a file elsewhere is another picture."""


class Arrays(Part):
    """A layout in one file of arrays."""

    names: tuple[RelativePath, ...]
    kind: Literal["npz", "hdf5"]
    lengths: dict[str, int] = {}
    """For an npz: official length of each array."""


class Layout(Part):
    """One way in which the dataset is laid out on disk."""

    name: str
    tables: tuple[Table, ...] = ()
    pictures: Pictures | None = None
    arrays: Arrays | None = None
    count: Count | None = None
    """Number of pictures in this layout, as published."""
    read: bool = True
    """Whether this project's reader reads it."""


class Trap(Part):
    """What has misled others, and who found it."""

    text: str
    source: str


class Dataset(Part):
    """One entry of the catalogue."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
    """Its value for ``data.source``."""
    title: str
    summary: str
    landing: Url | None
    pictures: Count | None
    lesions: Count | None
    patients: Count | None
    bytes: Count | None
    """Size of the default ``fetch`` download, or of the official archive; rounded."""
    image_type: tuple[Literal["dermoscopic", "clinical", "tbp tile", "any"], ...]
    lesion_ids: bool
    patient_ids: bool
    skin_type: Literal["yes", "partly", "no"]
    licence: Licence | None
    citation: str
    doi: str | None
    registration: str | None
    """Where to register or sign; None if that is not required."""
    steps: tuple[str, ...] = Field(min_length=1)
    """How to get it by hand."""
    files: tuple[RemoteFile, ...] = ()
    figshare_article: int | None = None
    """Figshare provides the addresses, sizes and checksums of the `files` that have no address."""
    listed: Listed | None = None
    pictures_fetched: bool = True
    """False: only tables are fetched; `steps` say where the pictures are."""
    layouts: tuple[Layout, ...] = Field(min_length=1)
    traps: tuple[Trap, ...] = ()
    sources: dict[Literal["counts", "licence", "files", "layout"], str]
    """Origin of the facts in this entry."""

    @property
    def fetchable(self) -> bool:
        """Whether a program may download it: an address is known and nobody has to sign."""
        return self.registration is None and bool(
            self.figshare_article or any(file.urls for file in self.files)
        )


def read_entry(path: Path) -> Dataset:
    """Read one file of ``entries/``.

    Raises:
        DataError: the file is not a valid entry, or its name is not the dataset's.
    """
    try:
        entry = Dataset.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(f"{path}: no valid entry of the catalogue ({error}).") from None
    if entry.name != path.stem:
        raise DataError(f"{path}: expected the entry of '{path.stem}', found that of '{entry.name}'.")
    return entry
