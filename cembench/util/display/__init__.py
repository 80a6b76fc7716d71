"""Numbers, tables, charts and image grids for people, without torch where no image is drawn."""
