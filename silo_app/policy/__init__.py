"""What may leave a silo: one release policy, owned by the silo."""
