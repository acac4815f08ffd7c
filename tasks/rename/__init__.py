"""Rename a folder's files by a template: planned whole, written down first, undone from the journal."""
