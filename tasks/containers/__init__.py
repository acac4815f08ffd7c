"""Containers of images: what lies in a tar, a zip, an LMDB environment or a Parquet file, and reading one of it."""
