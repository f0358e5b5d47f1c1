"""One silo's searchable cases: generations of an index over embeddings."""
