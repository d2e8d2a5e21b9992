"""From a folded float graph to one that trains with rounding, and on to the integers that the files hold."""
