"""Values as literals of Spark SQL, where a column of them would be thousands of calls to Java. Runs anywhere."""

import re


def sql_text(text: str) -> str:
    """Return a text of any characters as a literal."""
    # Spark would replace ${...} in any SQL by a variable.
    return "'" + re.sub(r"[\\'$]|[^ -~]", lambda match: f"\\U{ord(match[0]):08x}", text) + "'"


def sql_double(value: float) -> str:
    """Return a double as SQL that parses to the same bits."""
    return f"{value!r}D" if re.fullmatch(r"[0-9.]+", repr(value)) else f"CAST('{value!r}' AS DOUBLE)"
