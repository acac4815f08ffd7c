"""The demo: a small ImageNet-like folder of real photos whose content is known, and what its label maps tell."""
