"""``make docs``: copies the pages, writes the reference from the code, and lets Sphinx build the site.

Imports the pages' keeper and the reference's writers beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]  # the tiny bundle, whose server describes itself

import pages  # noqa: E402
import reference  # noqa: E402


def build(out: Path) -> int:
    """Build the whole site anew in ``out``; returns Sphinx's status, which is not 0 after any warning."""
    source, site = out / "source", out / "html"
    for folder in (source, site):
        shutil.rmtree(folder, ignore_errors=True)
    reference.write(source / "reference")
    pages.copy_pages(ROOT, source)
    arguments = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", str(HERE)]
    return sphinx([*arguments, "--doctree-dir", str(out / "trees"), "-E", str(source), str(site)])


if __name__ == "__main__":
    argument_parser = argparse.ArgumentParser(description=__doc__)
    argument_parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "docs", help="folder (%(default)s)"
    )
    folder = argument_parser.parse_args().out
    status = build(folder)
    if status == 0:
        print(f"open {folder / 'html' / 'index.html'}")
    sys.exit(status)
