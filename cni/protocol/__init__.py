"""The protocol as values: nothing here touches a file, a socket or a clock."""
