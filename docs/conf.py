"""How the site is made: `python -m sphinx -n -W --keep-going docs build/docs`."""

import logging

import stabilize

logging.getLogger("alembic").setLevel(logging.WARNING)  # a part of the theme turns INFO on

project = "stabilize"
author = "the stabilize authors"
copyright = "the stabilize authors, Apache License 2.0"
release = version = stabilize.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
html_theme = "furo"
html_title = f"stabilize {release}"

myst_heading_anchors = 3  # as on GitHub: links to headings work there and here
myst_fence_as_directive = ["mermaid"]  # drawn by the reader's browser, as on GitHub
mermaid_height = "240px"
mermaid_fullscreen = False

default_role = "code"  # docstrings say `name`
autodoc_default_options = {"members": True, "member-order": "bysource"}
maximum_signature_line_length = 80
nitpick_ignore_regex = [("py:.*", r"(?!stabilize\.).*")]  # other projects' names: no network here
nitpick_ignore = [
    ("py:class", "stabilize.backends.base.Backend"),
    ("py:class", "stabilize.dag.graph.S"),
    ("py:class", "stabilize.database.T"),
    ("py:class", "stabilize.events.query.Appended"),
    ("py:class", "stabilize.events.rows.Draft"),
    ("py:class", "stabilize.handlers.base.Handler"),
]
