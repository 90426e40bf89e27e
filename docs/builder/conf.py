"""How Sphinx builds the site. ``build.py`` calls it on a copy of the pages; warnings are errors there."""

from __future__ import annotations

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

from lesion_triage import __version__

project = "lesion-triage"
author = "The lesion-triage authors"
project_copyright = "The lesion-triage authors, Apache-2.0"
version = release = __version__
language = "en_GB"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["builder"]
smartquotes = False  # it makes one dash of the two before an option

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "model_config, model_post_init",
}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else an attribute that is also annotated stands there twice
lexers["csv"] = TextLexer()
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"lesion-triage {version}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    # The reader's own fonts: nothing is loaded from anywhere.
    "light_css_variables": {"font-stack": "system-ui, sans-serif", "color-brand-primary": "#0b5c7a"},
    "dark_css_variables": {"color-brand-primary": "#7cc7e3"},
    "footer_icons": [],
}
