"""Recall: what was done before with the same ingredients is not done again, in this run or any other."""
