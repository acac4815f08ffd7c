"""Teachers and label pooling: torch code that knows no Prefect and no file layout."""
