"""Names of tasks, for models that keep a row a task (a prototype, a route)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class KnowsTasks:
    """For models with a row a task: from task names to rows, by the config's ``tasks`` and ``task_aliases``."""

    def knows_task(self, name: str) -> bool:
        """Whether the model was trained on a task of this name, or one that it also goes by."""
        return self.config.task_aliases.get(name, name) in self.config.tasks

    def task_ids(self, names: Sequence[str]) -> torch.Tensor:
        """The row of each named task: (B).

        Raises:
            ValueError: a name is not among the tasks this model was trained on, nor another name of one of them.
        """
        if missing := sorted({name for name in names if not self.knows_task(name)}):
            msg = f"This model has no row for the tasks {missing}. Choose among {list(self.config.tasks)}."
            raise ValueError(msg)
        aliases = self.config.task_aliases
        rows = [self.config.tasks.index(aliases.get(name, name)) for name in names]
        return torch.tensor(rows, device=self.device)
