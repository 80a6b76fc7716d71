"""Hubs: finished runs on the Hugging Face hub and in stores that fsspec reaches."""
