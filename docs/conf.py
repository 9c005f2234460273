"""How Sphinx builds the site: `make docs`, offline, and a warning is an error."""

import pathlib
import re
import sys

import jax_ctc

# The pages are this folder; what only Sphinx needs is in `_site`.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "_site"))

project = "jax_ctc"
author = copyright = "The jax_ctc authors"
version = release = jax_ctc.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_site"]
nitpicky = True

# Pages are written for whoever reads the files, too: headings have the anchors that
# hosts of repositories give them.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# Shapes and dtypes are in the docstrings; annotations of what may come in are wide.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["keras"]  # the base class of one class
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False
napoleon_custom_sections = ["Results", "Status", "Numerics", "Cost", "Differs"]
default_role = "literal"
smartquotes_action = "D"  # dashes only: "inf" is what one types

# `make docs ARGS="-b linkcheck"`. What a DOI or a review leads to turns programs away.
linkcheck_ignore = [r"https://(doi\.org|openreview\.net)/"]
linkcheck_retries = 2

html_theme = "furo"
html_title = f"jax_ctc {version}"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "tango"
pygments_dark_style = "monokai"

# Pages for the repository that are pages of the site too.
_PAGES = re.compile(r"\]\((?:\.\./)?(CONTRIBUTING|CHANGELOG)\.md")


def _to_pages(app, name, source):
    """Let links to files above this folder lead to the pages that include them."""
    source[0] = _PAGES.sub(lambda found: f"]({found[1].lower()}.md", source[0])


def setup(app):
    """Register it."""
    app.connect("source-read", _to_pages)
