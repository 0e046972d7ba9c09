"""What a run does that depends on its kind of task; `DOMAINS` by the config's `task.name`."""

from attnlab.experiment.domains.base import Domain, Tested
from attnlab.experiment.domains.translation import Translation
from attnlab.experiment.domains.vision import Vision

DOMAINS: dict[str, Domain] = {"translation": Translation(), "vision": Vision()}

__all__ = ["DOMAINS", "Domain", "Tested"]
