"""Training students on what the stores hold."""
