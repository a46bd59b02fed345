"""The protocol as values, and the readers of small files. Nothing here uses a socket or a clock."""
