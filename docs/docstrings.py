"""How docstrings are read for the reference: their section "Example:" is what the parser calls "Examples:"."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Names the section of examples as the parser expects it, so that it is shown as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section in the docstring of any module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
