"""Read what a run told at its end."""

import re


def facts(said):
    """Return the lines of an outcome by their names."""
    return dict(re.findall(r"^  +(\S.*?)  +(.*)$", said, re.MULTILINE))
