"""Label maps as files: the layout of ReLabel's authors, a .pt file for each image."""
