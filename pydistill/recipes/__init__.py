"""Complete trainings: data, model, metric, recipe. They need ``pip install 'pydistill[train]'``."""

from pydistill._extra import require_train

require_train("pydistill.recipes")
