"""Sample documents for development: a file a collection, a whole document a line."""
