"""What was said, on disk and in other formats."""
