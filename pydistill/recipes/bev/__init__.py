"""Detection in bird's-eye view from LiDAR, cameras or both: networks, data, metric and training (UniDistill)."""
