"""The bytes of files: HDF5, zip, .npy, protobuf, CSV, and what the system lets a process read. Knows no Keras."""
