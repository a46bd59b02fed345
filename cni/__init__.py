"""podwire: a CNI plugin in one process."""

VERSION = "0.1.0"
