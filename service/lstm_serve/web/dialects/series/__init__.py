"""Rows of a series in place of ready sequences: the windows are cut here. Many at once, or as a device has them."""
