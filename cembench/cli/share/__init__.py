"""Commands that exchange files with others."""
