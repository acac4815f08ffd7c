"""A page that shows label maps: self-contained HTML over any label maps version."""
