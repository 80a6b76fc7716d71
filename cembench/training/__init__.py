"""Training of an experiment in its run folder."""
