"""Several experiments under one protocol, side by side, on this machine or others."""
