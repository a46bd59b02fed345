"""Findings about network configurations: in a file, its plugins, their order, and between the files of a folder."""
