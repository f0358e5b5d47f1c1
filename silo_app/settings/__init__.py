"""The parts of `silo.yaml`, each valid or not constructed; `silo_app.config` is the whole."""
