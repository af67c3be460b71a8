"""Will this host leak, and does the guard cover it: readings at the edge, checks as pure functions."""
