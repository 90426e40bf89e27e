"""Copies the hand-written pages for the builder: navigation into the landing page, links out of docs/ mended.

Imports PyYAML. The pages stay as they are read in the repository; only the copies are changed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

import yaml

HERE = Path(__file__).resolve().parent
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"(^```.*?^```$|`(?:[^`\n]|\n(?!\n))*`)", re.MULTILINE | re.DOTALL)
_EXPERIMENT_READMES = "experiments/*/README.md"


def navigation() -> dict[str, list[str]]:
    """Section of the site to its pages, in order."""
    read: dict[str, list[str]] = yaml.safe_load((HERE / "navigation.yaml").read_text(encoding="utf-8"))
    return read


def copy_pages(root: Path, source: Path) -> None:
    """Write the copies below ``source``.

    Args:
        root: the repository.
        source: what Sphinx will read; the written reference may be there already.
    """
    shutil.copytree(
        root / "docs",
        source,
        ignore=shutil.ignore_patterns("builder", "*.md", "__pycache__"),
        dirs_exist_ok=True,
    )
    site_paths = _site_paths(root)
    navigated = [name for pages in navigation().values() for name in pages]
    for page, site_path in site_paths.items():
        text = rewrite_links((root / page).read_text(encoding="utf-8"), page, site_paths, root)
        if site_path == PurePosixPath("index.md"):
            text += _toctrees()
        elif site_path == PurePosixPath("adr/README.md"):
            text += "\n```{toctree}\n:hidden:\n:titlesonly:\n:glob:\n\n0*\n```\n"
        elif site_path.parts[0] == "project" and str(site_path) not in navigated:
            text = f"---\norphan: true\n---\n{text}"
        target = source / site_path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def rewrite_links(
    text: str, page: PurePosixPath, site_paths: dict[PurePosixPath, PurePosixPath], root: Path
) -> str:
    """The text with each relative link pointing to the copy; a link to no page becomes plain words."""

    def link(found: re.Match[str]) -> str:
        target = PurePosixPath(os.path.normpath(page.parent / found[2]))
        site_path = site_paths.get(target)
        if site_path is None and target.parts[0] == "docs" and (root / target).is_file():
            site_path = target.relative_to("docs")  # a picture, copied with its folder
        if site_path is not None:
            return (
                f"{found[1]}{os.path.relpath(site_path, site_paths[page].parent)}{found[3] or ''}{found[4]}"
            )
        return f"] (`{target}`)" if (root / target).exists() else found[0]

    parts = _CODE.split(text)  # every other part is code, and stays
    parts[::2] = [_drop_dead_links(_LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)


def _drop_dead_links(text: str) -> str:
    """``[words] (`path`)`` without the brackets that no longer make a link."""
    text = re.sub(r"\[`?([^\[\]`]*)`?\] \(`\1/?`\)", r"`\1`", text)
    return re.sub(r"\[([^\[\]]*)\] (\(`[^`]*`\))", r"\1 \2", text)


def _site_paths(root: Path) -> dict[PurePosixPath, PurePosixPath]:
    """Page in the repository to its place in the site."""
    doc_pages = sorted((root / "docs").rglob("*.md"))
    project_names = (name for pages in navigation().values() for name in pages if name.startswith("project/"))
    project_pages = [root / name.removeprefix("project/") for name in project_names]
    site_paths = {}
    for page in (*doc_pages, *project_pages, *sorted(root.glob(_EXPERIMENT_READMES))):
        path = PurePosixPath(page.relative_to(root).as_posix())
        site_paths[path] = path.relative_to("docs") if path.parts[0] == "docs" else "project" / path
    return site_paths


def _toctrees() -> str:
    """One hidden tree of contents for each section, which the theme shows beside every page."""
    text = ""
    for section, names in navigation().items():
        listed = "\n".join(PurePosixPath(name).with_suffix("").as_posix() for name in names)
        text += f"\n```{{toctree}}\n:hidden:\n:titlesonly:\n:caption: {section}\n\n{listed}\n```\n"
    return text
