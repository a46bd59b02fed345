"""Things of podwire's on a node, and how each is removed; those of other programs are never touched."""
