"""The backends: the devices by which peers are reached."""
