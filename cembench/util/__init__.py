"""Foundations without machine learning: settings, files, random numbers, processes."""
