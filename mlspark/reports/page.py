"""HTML pages from the templates beside this module. Runs anywhere.

No script and nothing from elsewhere, and the base page forbids its browser both: category values are data that others
wrote. Every value is escaped; `visible` shows what could not be seen as its code.
"""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlspark.reports import wording


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mlspark.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["visible"] = wording.visible
    return environment


def render(template: str, **values: Any) -> str:
    """Return the page of a template, such as "profile.html.jinja", that extends base.html.jinja.

    Raises:
        jinja2.UndefinedError: the template asks for what is not in `values`.
    """
    return _environment().get_template(template).render(**values)
