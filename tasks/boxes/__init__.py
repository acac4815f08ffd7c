"""From annotation files to the rows of a boxes table."""
