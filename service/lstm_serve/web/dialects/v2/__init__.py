"""The Open Inference Protocol v2, which KServe, Triton, MLServer and OpenVINO speak."""
