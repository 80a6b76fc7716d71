"""Image files: where they are (sources), and how they become arrays (decoders and readers)."""
