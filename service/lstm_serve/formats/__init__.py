"""The bytes of files: HDF5, zip, .npy, protobuf, CSV, Parquet, and what the system lets be read. Knows no Keras."""
