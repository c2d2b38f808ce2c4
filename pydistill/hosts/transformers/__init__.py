"""pydistill for the detectors of transformers: matchers with the same constructors, arguments and results."""

from pydistill.hosts.transformers.matchers import (
    DeformableDetrHungarianMatcher,
    GroundingDinoHungarianMatcher,
    HungarianMatcher,
    LwDetrHungarianMatcher,
    RTDetrHungarianMatcher,
)

__all__ = [
    "DeformableDetrHungarianMatcher",
    "GroundingDinoHungarianMatcher",
    "HungarianMatcher",
    "LwDetrHungarianMatcher",
    "RTDetrHungarianMatcher",
]
