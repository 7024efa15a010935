"""What changes over a training run: learning rate, data mix, loss weight of the text that is read."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Warm-up, a long level stretch, then a linear decay.

    The level stretch does not depend on the number of steps, so a run can be made longer or shorter at any step
    before the decay starts, and resuming it with another number gives the same model as asking for it at once.
    """

    n_steps: int
    decay_share: float = 0.4
    n_warmup_steps: int = 200
    n_easy_steps: int = 3000

    def learning_rate_factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step, 0 to 1."""
        if step < self.n_warmup_steps:
            return (step + 1) / self.n_warmup_steps
        return 1.0 - 0.98 * self.settled_share(step)

    def settled_share(self, step: int) -> float:
        """Return how far the decay has come at a step: 0 before it, 1 at the last step."""
        n_decay = max(1, round(self.n_steps * self.decay_share))
        return min(1.0, max(0.0, (step - (self.n_steps - n_decay)) / n_decay))

    def ease(self, step: int) -> float:
        """Return the chance of a span question with a short context: high at first, so that copying starts early."""
        return 0.2 + 0.5 * max(0.0, 1.0 - step / self.n_easy_steps)

    def read_weight(self, step: int) -> float:
        """Return the loss weight of a token that is read, where a token that is written weighs 1 or so."""
        return 0.3 - 0.2 * self.settled_share(step)

    def made_up_share(self, step: int) -> tuple[float, float]:
        """Return the shares of documents that are made-up span questions, and restated facts."""
        settled = self.settled_share(step)
        early = max(0.0, 1.0 - step / self.n_easy_steps)
        return 0.27 + 0.13 * early - 0.17 * settled, 0.07
