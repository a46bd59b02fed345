"""The controllers: they compare desired with actual state, and repair."""
