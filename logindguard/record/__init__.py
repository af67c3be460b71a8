"""What is told of each reclaim, and to whom."""
