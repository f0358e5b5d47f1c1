"""Sample archives: phantom radiographs from physics, and image collections turned into hospitals' DICOM."""
