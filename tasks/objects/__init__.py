"""Object stores, S3 and GCS, through fsspec: nothing else in labelmill knows of their libraries."""
