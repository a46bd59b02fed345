"""The pictures of the documents, taken of a node that is made for them."""
