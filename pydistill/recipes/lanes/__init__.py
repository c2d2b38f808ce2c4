"""Lane detection with self attention distillation: scenes, ENet, TuSimple's metric, training and the demo."""
