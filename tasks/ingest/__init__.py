"""From folders of images to the rows of an images table."""
