"""How the sections of an evaluation are measured: a file for each of `evaluation.sections`."""
