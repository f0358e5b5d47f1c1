"""Pages that stand alone: one HTML file with its style and its drawings, no script, no address outside."""
