"""The name by which engines for bulk data, Ray and Spark, import what answers their batches."""

from lstm_serve.scoring.bulk import Predictor, make_predict_fn

__all__ = ["Predictor", "make_predict_fn"]
