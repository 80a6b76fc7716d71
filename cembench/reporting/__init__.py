"""Records as tables, pages and plots."""
