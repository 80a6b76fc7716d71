"""Commands about this machine and shell."""
