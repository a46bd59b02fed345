"""The command-line tool, for people; a runtime's call loads nothing of it."""
