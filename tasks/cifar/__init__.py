"""CIFAR-10 and CIFAR-100: pixels of their files read in place, labels from beside them."""
