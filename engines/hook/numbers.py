"""What an epoch of a hook says: the numbers of docs/monitoring.md, and the alerts on them."""

import logging

from ...masking import TokenGrid
from ..config.pretraining import SamplerConfig
from ..core.meters import Meters
from ..core.runtime import Runtime
from ..pretrain.alerts import alerts, is_young
from ..pretrain.diagnostics import Diagnostics

logger = logging.getLogger(__name__)


class EpochNumbers:
    """The meters and diagnostics of one epoch."""

    def __init__(self, grid: TokenGrid, runtime: Runtime, config: SamplerConfig):
        self.runtime, self.config = runtime, config
        self.meters, self.diagnostics = Meters(runtime.device), Diagnostics(grid, runtime.device)

    def close(self, epoch: int | None, acted: int, others: dict[str, float]) -> dict[str, float]:
        """The means over all processes, each of which must call; the main one warns. Everything begins anew.

        Args:
            acted: epochs of the policy so far. others: numbers of the loop itself that the alerts may read.
        """
        means = self.meters.means(self.runtime) | self.diagnostics.read(self.runtime)[0]
        if self.runtime.is_main:
            for message in alerts(means | others, self.config, fork=True, young=is_young(acted)):
                logger.warning("epoch %s: %s", epoch, message)
        self.meters.reset()
        self.diagnostics.reset()
        return means

    def log(self, epoch: int | None, means: dict[str, float]) -> None:
        """For a loop that does not take the means itself."""
        if self.runtime.is_main:
            logger.info("epoch %s: %s", epoch, "  ".join(f"{name} {value:.4g}" for name, value in means.items()))
