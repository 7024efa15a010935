"""Recording: routers found and proven, passes watched, traces written."""

from hooks.models import load_model
from hooks.recorder import Recorder
from hooks.sites import find_sites

__all__ = ["Recorder", "find_sites", "load_model"]
