"""What a user may write, as records; reading them gathers all faults."""
