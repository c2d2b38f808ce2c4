"""Pictures, plots and HTML pages of the recipes. It needs ``pip install 'pydistill[train]'``."""

from pydistill._extra import require_train

require_train("pydistill.report")
