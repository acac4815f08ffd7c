"""What data looks like: Arrow schemas, parameter models, names, errors and the store's contract."""
