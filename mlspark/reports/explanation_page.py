"""Rows and what made their predictions, as one HTML file. Runs anywhere."""

from mlspark.reports import page, rows_section
from mlspark.reports.rows_section import Examined


def render(title: str, examined: Examined, most_columns: int = rows_section.MOST_COLUMNS) -> str:
    """Return the page.

    Args:
        title: of the page.
        examined: the rows.
        most_columns: columns of a row that are shown, see `rows_section.section`.
    """
    section = rows_section.section(examined, most_columns)
    return page.render("explanation.html.jinja", title=title, examined=section, has_pictures=section.has_pictures)
