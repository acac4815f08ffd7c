"""Exact statistics of a dataset's pixels and facts, from histograms that shards leave and SQL can merge."""
