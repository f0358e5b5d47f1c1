"""Adapters to NVFlare, and the only importer of it: convert in, one domain call, convert out."""
