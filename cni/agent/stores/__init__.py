"""Where nodes tell each other their subnets: one small interface, and one file for each kind of store."""
