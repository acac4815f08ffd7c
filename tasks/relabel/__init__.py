"""From the rows of an images table to the rows of a label maps table."""
