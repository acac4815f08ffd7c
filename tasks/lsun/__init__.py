"""LSUN: LMDB environments of encoded images, listed, exported and made rows of an images table."""
