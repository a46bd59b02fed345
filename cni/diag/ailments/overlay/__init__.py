"""Ailments of podwired's network: the agent, its tunnel, its peers, its policies."""
