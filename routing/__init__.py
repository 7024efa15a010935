"""The nouns of RouteScope: traces of routing, selections, tasks and prompts, and their errors."""

from routing.chunks import PHASES, Chunk
from routing.errors import RecordingError, RoutingError, SelectionError, TaskError, TraceError
from routing.facts import LayerFacts, Provenance, stacks_of
from routing.invariants import check_invariants, violations
from routing.memory import trace_from_arrays, trace_from_counts
from routing.selection import Focus, Selection, expert_name
from routing.tasks import Metric, Prompt, Task, TaskSet, prompt_text
from routing.trace import RoutingTrace

__all__ = [
    "PHASES",
    "Chunk",
    "Focus",
    "LayerFacts",
    "Metric",
    "Prompt",
    "Provenance",
    "RecordingError",
    "RoutingError",
    "RoutingTrace",
    "Selection",
    "SelectionError",
    "Task",
    "TaskError",
    "TaskSet",
    "TraceError",
    "check_invariants",
    "expert_name",
    "prompt_text",
    "stacks_of",
    "trace_from_arrays",
    "trace_from_counts",
    "violations",
]
