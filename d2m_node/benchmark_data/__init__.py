"""The benchmark data sets: what their files are, whether a folder holds them, where to get them."""
