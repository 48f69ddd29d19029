"""The command line: it parses, it delegates, and it says what went wrong."""
