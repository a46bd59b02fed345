"""`podwire doctor --bundle`: an archive for a bug report, without secrets and without the names of others' things."""
