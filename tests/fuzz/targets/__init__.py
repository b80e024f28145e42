"""One file for each reader of foreign bytes, with its contract."""
