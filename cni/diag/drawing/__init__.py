"""The drawing of a node and its cluster: from the kernel's state and podwired's to a tree, SVG and HTML."""
