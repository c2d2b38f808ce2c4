"""Object detection with box sides as distributions: data, network, training, evaluation, report."""
