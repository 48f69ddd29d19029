"""Whether all that a conversation needs is there, and what mends what is not."""
