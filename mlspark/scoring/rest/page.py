"""The page that a browser shows: what the model takes, and a row to try. Nothing of it comes from elsewhere."""

from functools import cache

from mlspark.reports import page

HEADERS = {"cache-control": "no-cache"}


@cache
def html() -> str:
    """Return the page; it asks the server for openapi.json, so it tells nothing itself."""
    return page.render("serving.html.jinja", title="mlspark")


@cache
def script() -> str:
    """Return the page's script."""
    return page.render("serving.js.jinja")
