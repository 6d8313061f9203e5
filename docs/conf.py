"""Sphinx: the pages of this folder and a reference of the public names.

sphinx-build -W docs OUT
"""

import jvae

project = "jvae"
author = "the jvae authors"
copyright = author
version = release = jvae.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"jvae {version}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def _escape_bars(app, what, name, obj, options, lines):
    """Keeps q(z|x) and KL(q || p) from being read as RST substitutions."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app):
    """Runs before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", _escape_bars, priority=400)


html_static_path = ["_static"]
html_css_files = ["tables.css"]
