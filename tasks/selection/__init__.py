"""Choose among pseudo labels, report what thresholds would yield, and review labels that a teacher contradicts."""
