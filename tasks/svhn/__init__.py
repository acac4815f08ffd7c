"""SVHN's cropped digits: MATLAB files, whose images are written out to be addressable."""
