"""Training an experiment in its run folder."""
