"""The bytes of files: HDF5, zip, .npy, protobuf, CSV. Refuses what is damaged or too large. Knows no Keras."""
