"""The forms of the API: native, v1 of TF-Serving and KServe, v2 of the Open Inference Protocol."""
