"""What a reader fills in to have a model recorded: model, tasks, limits, name; and what that will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st

from app import cache, headings, sentences, state, status
from app.commands.terminal import bytes_in_words
from app.recordings import dropped
from app.recordings import record_sentences as words
from app.recordings.asked_plan import Looking, ask, is_asked, looks_like_hub_name, why_no_folder
from app.recordings.estimate import Estimate, Options, estimate, free_disk, free_memory, limit_for
from app.recordings.kept import Request
from app.recordings.models import SAMPLE_TASKS, about, found_models, shown_path
from app.recordings.outlook import Outlook

__all__ = ["form"]

_POLL_SECONDS = 0.7
_OTHER = "another folder, or a name on the hub"
_SAMPLE, _FILES, _FOLDER = "Sample tasks", "Files of mine", "A folder here"
_LEVELS = {
    "full": "Everything: experts, weights, scores, runners-up and all logits.",
    "assignments": "Experts, weights, scores and runners-up, without the logits of the others.",
    "counts": "How often each task chose each expert, and nothing of single tokens.",
}
_MOST_MEGABYTES = 200


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Model and tasks as they were named."""

    model: str
    sources: tuple[str, ...]
    revision: str | None
    trust_remote_code: bool

    @property
    def is_on_hub(self) -> bool:
        return not Path(self.model).is_dir()


@dataclass
class _Started:
    """How many recordings this session started; a name is proposed anew after each."""

    n: int = 0


def form(taken: Sequence[str]) -> None:
    """Draw the form.

    Args:
        taken: names that traces have already.
    """
    left, right = st.columns([5, 4], gap="large")
    with left:
        asked = _model_and_tasks()
    with right:
        if asked is None:
            st.info("Name a model and tasks, and see here what recording them takes.", icon=":material/straighten:")
            return
        looking = _looked(asked)
    if looking is None:
        return
    if looking.outlook is None:
        with right:
            _tell_problem(looking.problem)
        return
    seen = looking.outlook
    with left:
        tasks, options = _what_of_it(seen)
        more = _more(seen, options)
    with right:
        if not tasks:
            _tell_problem(_why_no_task(seen))
            return
        request = replace(
            more,
            model=shown_path(Path(asked.model)) if not asked.is_on_hub else asked.model,
            tasks=asked.sources,
            # A list of all names would hide a task that is added to the source later.
            only=() if len(tasks) == len(seen.tasks) else tuple(tasks),
            revision=asked.revision,
            trust_remote_code=asked.trust_remote_code,
        )
        options = replace(
            options, dtype=request.dtype, batch_size=request.batch_size, n_runners_up=request.n_runners_up
        )
        _size_and_start(seen, tasks, options, request=request, taken=taken)


def _model_and_tasks() -> _Asked | None:
    known = {each.folder: each for each in found_models()}
    picked = st.selectbox(
        "Model",
        [*known, _OTHER],
        key="record_model",
        format_func=lambda folder: known[folder].name if folder in known else folder,
        help="Any Mixture-of-Experts model of transformers. Weights are read from safetensors files only.",
    )
    model = str(picked)
    if picked == _OTHER:
        model = st.text_input(
            "Its folder, or its name on the hub",
            key="record_folder",
            placeholder="/models/OLMoE-1B-7B-0924 or allenai/OLMoE-1B-7B-0924",
        ).strip()
    elif what := about(model):
        st.caption(sentences.escaped(what))
    revision, trusts = None, False
    if picked == _OTHER:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="large"):
            trusts = st.checkbox(
                "Run the model's own code",
                key="record_trust",
                help="trust_remote_code: Python files that lie beside the weights are run on this machine, with all "
                "your rights. Tick it only for code that you have read.",
            )
            if model and looks_like_hub_name(model) and not Path(model).expanduser().is_dir():
                revision = st.text_input("Revision", key="record_revision", placeholder="main").strip() or None
    sources = _sources()
    if not model or not sources:
        return None
    folder = Path(model).expanduser()
    name = str(folder.resolve()) if folder.is_dir() else model
    return _Asked(model=name, sources=sources, revision=revision, trust_remote_code=trusts)


def _sources() -> tuple[str, ...]:
    kind = st.segmented_control(
        "Tasks", [_SAMPLE, _FILES, _FOLDER], key="record_source", default=_SAMPLE, required=True
    )
    if kind == _SAMPLE:
        return (shown_path(SAMPLE_TASKS),)
    if kind == _FOLDER:
        path = st.text_input(
            "Folder with a tasks.json or task files, or one file",
            key="record_tasks",
            placeholder="/data/my_tasks",
        ).strip()
        return (shown_path(Path(path).expanduser()),) if path else ()
    files = st.file_uploader(
        "Task files",
        type=["jsonl", "csv", "parquet", "gz"],
        accept_multiple_files=True,
        key="record_files",
        max_upload_size=_MOST_MEGABYTES,
        label_visibility="collapsed",
    )
    st.caption(
        "JSONL, CSV or Parquet, a row a prompt: `text`, or `input`, and if there is something to score `target` (or "
        "`answers`, `options`); `task` and `task_type` group them, else the file's name does. Files stay "
        "on the machine that runs the app, beside the runs."
    )
    return tuple(str(path) for path in dropped.keep(files, cache.own_runs()))


def _looked(asked: _Asked) -> Looking | None:
    """What is known of model and tasks; None while that is being found, which the page then says."""
    given = {"revision": asked.revision, "trust_remote_code": asked.trust_remote_code, "jobs": cache.plans()}
    if problem := why_no_folder(asked.model):
        return Looking(problem=f"{problem} Give the path of a folder that holds config.json, or a name on the hub.")
    if asked.is_on_hub and not is_asked(asked.model, asked.sources, **given):
        st.info(
            f"There is no folder {sentences.escaped(asked.model)} on this machine. The hub can be asked for a model of "
            "this name; that is the one request that leaves this machine, and weights come only when you start.",
            icon=":material/cloud_download:",
        )
        st.button(
            "Ask the hub",
            key="record_hub",
            icon=":material/travel_explore:",
            on_click=lambda: ask(asked.model, asked.sources, **given),
        )
        return None
    key, looking = ask(asked.model, asked.sources, **given)
    if not looking.is_over:
        status.waiting_for("Laying out the model and counting the tokens of the tasks")
        _wait(asked)
        return None
    if looking.problem:
        st.button(
            "Look again",
            key="record_again",
            icon=":material/refresh:",
            type="tertiary",
            on_click=cache.plans().forget,
            args=(key,),
        )
    return looking


@st.fragment(run_every=_POLL_SECONDS)
def _wait(asked: _Asked) -> None:
    """Say what is looked for, until it is there."""
    given = {"revision": asked.revision, "trust_remote_code": asked.trust_remote_code, "jobs": cache.plans()}
    _, looking = ask(asked.model, asked.sources, **given)
    if looking.is_over:
        st.rerun()
    elif looking.is_waiting:
        st.caption(":material/hourglass: Another look at a model is at work; this one begins when that ends.")
    else:
        st.caption(
            ":material/progress_activity: Laying out the model without its weights and counting the tokens of the "
            f"tasks, for {looking.seconds:.0f} s so far."
        )


def _what_of_it(seen: Outlook) -> tuple[list[str], Options]:
    known = [each for each in seen.tasks if each.is_known]
    sizes = {each.name: each.n_prompts for each in known}
    tasks = st.pills(
        "Which tasks",
        list(sizes),
        selection_mode="multi",
        default=list(sizes),
        key=f"record_only_{hash(tuple(sizes))}",
        format_func=lambda name: f"{sentences.escaped(name)} · {sizes[name]:,}",
        wrap=True,
    )
    if unknown := [each.name for each in seen.tasks if not each.is_known]:
        st.caption(words.of_foreign(seen, unknown))
    level = st.segmented_control("Level", list(_LEVELS), key="record_level", default="full", required=True)
    st.caption(_LEVELS[level])
    with st.container(horizontal=True, gap="medium", vertical_alignment="top"):
        device = st.selectbox(
            "Device",
            ["auto", *seen.devices],
            key="record_device",
            format_func=lambda each: f"auto ({seen.devices[0]})" if each == "auto" else each,
        )
        limit = st.number_input(
            "Prompts a task",
            min_value=1,
            value=None,
            step=1,
            key="record_limit",
            placeholder="all",
            help="At most so many of each task, drawn by the seed.",
        )
        most = st.number_input(
            "Tokens in all",
            min_value=1,
            value=None,
            step=1000,
            key="record_budget",
            placeholder="no limit",
            help="As many prompts of each task as stay within so many tokens, the same number of each.",
        )
        written = st.number_input(
            "Tokens to generate",
            min_value=0,
            value=None,
            step=1,
            key="record_new_tokens",
            placeholder="by task",
            help="For each answer that is not chosen among options; 0 only reads the prompts.",
        )
    options = Options(level=level, limit=limit, max_new_tokens=written, device=device)
    if most is not None:
        within = limit_for(seen, tasks, options, most_rows=most)
        options = replace(options, limit=min(within or 1, limit or within or 1))
        st.caption(f"That is {sentences.count(options.limit or 1, 'prompt')} of each task at most.")
    return list(tasks), options


def _more(seen: Outlook, options: Options) -> Request:
    """The rest of what a recording is told, in the order of rarity."""
    n_too_long = sum(each.n_too_long for each in seen.tasks)
    truncates = False
    if n_too_long:
        truncates = st.checkbox(
            f"Cut off the beginning of prompts beyond {seen.context:,} tokens",
            key="record_truncate",
            help=f"{sentences.count(n_too_long, 'prompt')} of these tasks are longer with their answer than what the "
            "model reads. Unless they are cut, a recording that meets one ends with an error.",
        )
    with st.expander("More"), st.container(horizontal=True, gap="medium"):
        batch_size = st.number_input("Prompts a batch", min_value=1, value=16, step=1, key="record_batch")
        dtype = st.selectbox("Precision", ["auto", "float32", "bfloat16", "float16"], key="record_dtype")
        runners_up = st.number_input(
            "Runners-up",
            min_value=0,
            value=4,
            step=1,
            key="record_runners",
            help="Experts kept for each decision beyond those that were selected.",
        )
        seed = st.number_input("Seed", value=0, step=1, key="record_seed", help="Of the drawing of prompts.")
    return Request(
        model="",
        tasks=(),
        out="",
        level=options.level,
        limit=options.limit,
        max_new_tokens=options.max_new_tokens,
        device=options.device,
        batch_size=batch_size,
        dtype=dtype,
        n_runners_up=runners_up,
        seed=seed,
        too_long="truncate" if truncates else "error",
    )


def _size_and_start(
    seen: Outlook, tasks: Sequence[str], options: Options, *, request: Request, taken: Sequence[str]
) -> None:
    size = estimate(seen, tasks, options)
    runs = cache.own_runs()
    free, memory = free_disk(runs), free_memory()
    with st.container(border=True, key="record_size"):
        headings.part("What it will take")
        with st.container(horizontal=True, gap="medium"):
            _metrics(size)
        st.markdown(words.of_prompts(size, unit="prompt" if seen.by_prompt else "token"))
        st.caption(f"**Disk.** {words.of_disk(size, seen, options)}")
        st.caption(f"**Memory.** {words.of_memory(size, seen, options)}")
        st.caption(words.of_rest(free=free, memory=memory, folder=str(runs)))
    disk, memory_short = words.of_room(size, free=free, memory=memory, folder=str(runs))
    model = Path(request.model).name
    # What others start meanwhile must not take away a name that is being typed.
    key = f"record_name_{model}_{_started().n}"
    name = st.text_input("Name of the trace", value=_proposed(model, taken), key=key).strip()
    problem = words.why_no_name(name, taken) or disk
    if problem:
        st.error(problem, icon=":material/error:")
    elif memory_short:
        st.warning(memory_short, icon=":material/memory:")
    st.button(
        "Record",
        key="record_start",
        type="primary",
        icon=":material/radio_button_checked:",
        disabled=bool(problem),
        on_click=_start,
        args=(name, replace(request, out=str(runs / name))),
    )


def _metrics(size: Estimate) -> None:
    disk = "unknown" if size.disk_bytes is None else bytes_in_words(size.disk_bytes)
    memory = "unknown" if size.memory_bytes is None else bytes_in_words(size.memory_bytes)
    st.metric("On disk, about", disk)
    st.metric("In memory, about", memory)
    st.metric("Prompts", f"{size.n_prompts:,}")


def _started() -> _Started:
    return state.remembered("recordings_started", "", _Started)


def _start(name: str, request: Request) -> None:
    cache.recordings().start(name, request)
    # Afterwards: now the request names the files that it needs.
    dropped.sweep(cache.own_runs())
    _started().n += 1
    cache.look_again()


def _tell_problem(problem: str) -> None:
    first, rest = words.first_and_rest(dropped.without_places(problem, cache.own_runs()))
    st.error(sentences.escaped(first), icon=":material/error:")
    if rest:
        st.caption(sentences.escaped(rest))


def _why_no_task(seen: Outlook) -> str:
    if any(each.is_known for each in seen.tasks):
        return "No task is chosen. Choose at least one on the left."
    return f"This {seen.model_class} knows none of these tasks. Give tasks that it was trained on."


def _proposed(name: str, taken: Sequence[str]) -> str:
    plain = "".join(each if each.isalnum() or each in "._-" else "-" for each in name).strip(".-_") or "run"
    number, proposed = 1, plain
    while proposed in taken:
        number += 1
        proposed = f"{plain}-{number}"
    return proposed
