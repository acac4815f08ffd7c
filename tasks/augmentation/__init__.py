"""Views of images by a policy: drawn once, applied to pixels, boxes and masks, recorded and replayed."""
