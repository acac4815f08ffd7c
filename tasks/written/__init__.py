"""Files that Labelmill writes for people below a folder of theirs: exports, conversions, extracted archives."""
