"""The nouns of RouteScope: traces of routing, selections, tasks and prompts, and their errors."""

from routing.adapters import (
    ABSENT_ADAPTER,
    MAX_PARAMETERS,
    MISSING_ADAPTER,
    Adapters,
    AdapterSite,
    adapters_of,
    flattened_adapter,
    selected_set_key,
)
from routing.chunks import PHASES, Chunk
from routing.errors import RecordingError, RoutingError, SelectionError, TaskError, TraceError
from routing.facts import LayerFacts, Provenance, stacks_of
from routing.invariants import check_invariants, violations
from routing.memory import trace_from_arrays, trace_from_counts
from routing.selection import Focus, Selection, expert_name
from routing.store.batch import TokenBatch
from routing.store.derived import load_derived, save_derived
from routing.store.format import from_bfloat16, to_bfloat16
from routing.store.pack import pack_trace, save_trace
from routing.store.recover import recover_trace
from routing.store.stored import open_trace
from routing.store.verify import verify_trace
from routing.store.writer import TraceWriter
from routing.summaries import TaskSummary, TraceSummary, summary
from routing.task_files import read_tasks
from routing.tasks import Metric, Prompt, Task, TaskSet, prompt_text
from routing.trace import RoutingTrace

__all__ = [
    "ABSENT_ADAPTER",
    "MAX_PARAMETERS",
    "MISSING_ADAPTER",
    "PHASES",
    "AdapterSite",
    "Adapters",
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
    "TaskSummary",
    "TokenBatch",
    "TraceError",
    "TraceSummary",
    "TraceWriter",
    "adapters_of",
    "check_invariants",
    "expert_name",
    "flattened_adapter",
    "from_bfloat16",
    "load_derived",
    "open_trace",
    "pack_trace",
    "prompt_text",
    "read_tasks",
    "recover_trace",
    "save_derived",
    "save_trace",
    "selected_set_key",
    "stacks_of",
    "summary",
    "to_bfloat16",
    "trace_from_arrays",
    "trace_from_counts",
    "verify_trace",
    "violations",
]
