"""Archives extracted into a folder, in which nothing they say can do harm."""
