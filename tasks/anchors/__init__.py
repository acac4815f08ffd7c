"""Anchors for detectors: clustered from the boxes of a dataset, measured and written for trainers."""
