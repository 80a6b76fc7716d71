"""What everything stands on: settings, files, randomness, processes."""
