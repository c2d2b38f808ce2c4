"""Sphinx settings: `make docs` builds the manual into build/docs and fails on a warning."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pydistill

project = "pydistill"
copyright = "the pydistill authors"
version = release = pydistill.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pydistill {version}"
exclude_patterns = ["_build", "results"]  # included by pages
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_mock_imports = ["lightning", "mmdet", "mmengine", "torchdistill"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Reference", "References"]
