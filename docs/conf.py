"""Sphinx: python -m sphinx -W --keep-going -b html docs docs/_build (extra ``docs``). A broken link fails the build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import dnas

project, author, release = "dnas", "the dnas authors", dnas.__version__
copyright = "2026, the dnas authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme, html_title = "furo", f"dnas {dnas.__version__}"
exclude_patterns = ["_build"]
nitpicky = False  # types of JAX and NumPy have no pages here
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints, autodoc_member_order = "signature", "bysource"
autodoc_default_options = {"members": True, "ignore-module-all": True}
# a docstring may be prose that is no strict reStructuredText; links between pages are still checked
suppress_warnings = ["docutils", "ref.python"]
