"""The agent's state as people and programs ask for it: a snapshot, and the same as JSON and as a page."""
