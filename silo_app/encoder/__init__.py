"""From radiograph to embedding: model, training, evaluation. The only importer of torch and MONAI."""
