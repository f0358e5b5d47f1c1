"""Who is in the federation: from consortium.yaml to startup kits, and a whole consortium on one machine."""
