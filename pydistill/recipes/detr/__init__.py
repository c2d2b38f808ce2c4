"""Detectors of objects by queries, trained with and without a teacher (DETRDistill)."""
