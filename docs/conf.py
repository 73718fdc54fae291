"""Sphinx configuration of the site that ``make docs`` builds. Generates the pages below ``_made`` first."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import _make  # noqa: E402

_make.main()

project = "mesm"
author = "the mesm authors"
copyright = "the mesm authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_made/modules.md", "_made/layers.md", "_made/adding-*.md", "_build"]
html_theme = "furo"
html_title = "mesm"
html_copy_source = False
smartquotes = False
html_show_copyright = False
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "inherited-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
