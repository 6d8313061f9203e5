"""Pages of one file: the templates beside this module, filled in."""

from __future__ import annotations

from typing import Any

from jvae.evaluation.metrics import format_metric


def render_template(template: str, **values: Any) -> str:
    """Returns a page that needs no other file.

    Args:
      template: a file beside this module; what is put into it is escaped.
      **values: by the names that it uses; one that is missing is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jvae", "reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = format_metric
    return environment.get_template(template).render(**values)
