"""Charts drawn with matplotlib, for the page, for files, and beside a record."""
