"""Flags and environment variables of podwired, and the options that they make."""
