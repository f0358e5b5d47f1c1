"""From a hospital's DICOM to clean radiographs in the silo's cache. The only importer of pydicom."""
