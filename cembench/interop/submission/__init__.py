"""Submissions to a shared board: entries are written by one side, and recounted by the other."""
