"""Recorder: attach, run, leave; the lifecycle of a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from hooks.adapter_books import AdapterBook, SetBook, TaskBook
from hooks.adapter_proof import AdapterProof
from hooks.beside import Beside
from hooks.conditioning import Conditioning
from hooks.courier import Courier
from hooks.generation import eos_ids_of, generation_watched
from hooks.ledger import RowLedger
from hooks.passes import Generation, Labels, Pass, inner_model
from hooks.pipeline import Level, LogitsPrecision, Pipeline
from hooks.prompt_book import PromptBook
from hooks.prompt_ledger import PromptLedger
from hooks.provenance import provenance_of
from hooks.proving import Proving
from hooks.sites import Site, attach_taps, find_sites
from hooks.surroundings import is_compiled, own_folder
from hooks.taps.hyper_moe import HyperMoeTap
from hooks.taps.task_adapters import TaskAdapterTap, task_adapter_taps
from hooks.text_watch import TextWatch
from hooks.vectors import model_vectors
from hooks.watch import PassWatch
from routing import Prompt, RecordingError, RoutingTrace, TaskSet, open_trace

if TYPE_CHECKING:
    from typing import Literal

    from hooks.encoding import TooLong
    from hooks.evaluation import Evaluation, Progress
    from hooks.options import OptionNorm

__all__ = ["Recorder"]


class Recorder:
    """Records the routing of a model while it runs, into a folder.

        with Recorder(model, tokenizer, out="runs/first") as recorder:
            recorder.run(prompts, batch_size=16)

    Instead of `run`, any loop of your own, `generate()` or a trainer may call the model: what it reads is recorded.
    Nothing is changed: hooks only look, outputs are the same bit for bit, and every hook leaves with the context,
    whichever way it is left. Padding is dropped by the attention mask; rows of `generate()` that are done are dropped
    from their end token on; several texts packed into a row are told apart by positions that start again.

    Not recorded, but refused by name: beam search and drafted tokens (their rows do not belong to the text that
    remains), CUDA graphs, `torch.nn.DataParallel`. With `torch.compile` graphs break at the routers, and compiled code
    is thrown away when a recording begins and ends. In a process group each rank records what it runs into a part of
    its own (`runs/first/part-00003`); the folder opens as one trace.

    Args:
        model: a transformers model with experts; wrappers such as DDP, PEFT and torch.compile may be around it.
        tokenizer: its tokenizer; needed by `run`, and for the pieces of text in the trace.
        out: folder of the trace; it must not hold one.
        level: "full"; "assignments" leaves the logits out; "counts" keeps only how often each task's tokens were
            assigned to each expert.
        n_runners_up: unselected experts kept for each decision.
        tasks: prompts that will be labelled, known beforehand: the prompt table is then written once.
        logits: precision in which logits are kept; "auto" keeps bfloat16 as it is and anything else as float16.
        with_nll: whether each token's likelihood is taken from the model's logits.
        seed: the run's seed, for the record.
        name: name of the model, for the record.
        revision: revision of the model, for the record.
        tasks_source: where the tasks come from, for the record.
        note: what a reader must know.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        out: str | Path,
        level: Level = "full",
        n_runners_up: int = 4,
        tasks: TaskSet | None = None,
        logits: LogitsPrecision = "auto",
        with_nll: bool = True,
        seed: int | None = None,
        name: str | None = None,
        revision: str | None = None,
        tasks_source: str = "",
        note: str | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.inner = inner_model(model)
        self.out = own_folder(Path(out))
        self.level: Level = level
        self._options = {"level": level, "n_runners_up": n_runners_up, "logits": logits}
        self._facts = {"name": name, "revision": revision, "seed": seed, "tasks": tasks_source, "note": note}
        self._with_nll = with_nll and level != "counts"
        self.book = PromptBook(series="" if self.out == Path(out) else f"{self.out.name}-")
        if tasks is not None:
            self.book.add(tasks)
        self._labels: Labels | None = None
        self._n_labellings = 0
        self._early: list[tuple[Pass, dict[str, int]]] = []
        self._pipeline: Pipeline | None = None
        self._updates: dict[str, Any] = {}
        self._open = ExitStack()
        self.unit: Literal["token", "prompt"] = "token"
        self._adapters: list[TaskAdapterTap] = []

    def __enter__(self) -> Self:
        """Attach the hooks.

        Raises:
            RecordingError: the model has no router that can be read, or the folder holds a trace.
        """
        if (self.out / "header.json").exists():
            msg = f"{self.out} already holds a trace, and a trace is written once. Choose another folder or remove it."
            raise RecordingError(msg)
        sites = find_sites(self.inner)
        self._provenance = provenance_of(self.inner, **self._facts)
        self._compiled = is_compiled(self.model) or is_compiled(self.inner)
        self._proving = Proving(sites)
        self.unit = "prompt" if any(site.tap.unit == "prompt" for site in sites) else "token"
        self._adapters = task_adapter_taps(self.inner)
        self._watch = self._watching(sites)
        self._adapter_proof = AdapterProof(self._adapters, vectors=lambda: self._watch.conditioning())
        with ExitStack() as opened:
            if self._compiled:
                # Compiled code holds the hooks of its first call: it must be made anew with ours, and again without.
                torch._dynamo.reset()
                opened.callback(torch._dynamo.reset)
                self._watch.copy_always()
            self._courier = Courier()
            opened.callback(self._courier.close)
            receive = torch.compiler.disable(self._watch.receive) if self._compiled else self._watch.receive
            for handle in (*attach_taps(self.inner, sites, receive), *self._watch.attach(compiled=self._compiled)):
                opened.callback(handle.remove)
            opened.callback(self._proving.end)
            self._proving.begin()
            opened.callback(self._adapter_proof.end)
            self._adapter_proof.begin()
            opened.enter_context(
                generation_watched(self.inner, begun=self._generating, paused=lambda: self._watch.paused)
            )
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the hooks, write what is pending, close the trace.

        Raises:
            RecordingError: writing failed, or nothing was recorded.
        """
        if kind is not None:
            self._watch.forget()
        try:
            self._finish(complete=kind is None)
        except RecordingError as also:
            if error is None:
                raise
            if also is not error:
                error.add_note(f"The trace could not be finished either: {also}")

    def run(
        self,
        prompts: TaskSet | Sequence[Prompt],
        *,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        too_long: TooLong = "error",
        option_norm: OptionNorm = "bytes",
        progress: Callable[[Progress], None] | None = None,
    ) -> Evaluation:
        """Evaluate the model on prompts while it is recorded.

        Prompts with options are answered by the option that the model finds likeliest, in a pass that is not
        recorded; then the prompt with that answer is recorded. Others are generated greedily as far as their task
        says. Predictions and scores are written beside the routing.

        Args:
            prompts: a task set, or prompts; prompts without a task are read, and answered only if they have options.
            batch_size: texts a batch.
            max_new_tokens: how much to generate, instead of what the tasks say; 0 only reads.
            too_long: "error", or "truncate" to cut off the beginning of texts that exceed the model's context.
            option_norm: what the log-likelihood of an option is divided by: its UTF-8 bytes, its tokens, or nothing.
            progress: called after every batch.

        Raises:
            TaskError: there are no prompts, or one is longer than the model's context.
            RecordingError: the tokenizer is missing, or recording failed.
        """
        from hooks.evaluation import evaluated

        return evaluated(
            self,
            prompts,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            too_long=too_long,
            option_norm=option_norm,
            progress=progress,
        )

    @contextmanager
    def labelled(
        self,
        prompts: Sequence[Prompt],
        *,
        n_tokens: Sequence[int] | None = None,
        n_prompt_tokens: Sequence[int] | None = None,
    ) -> Iterator[None]:
        """While open, the rows of a batch are these prompts, in order.

        Args:
            prompts: one for each row.
            n_tokens: real tokens of each row, where batches are padded on the right and passed without a mask.
            n_prompt_tokens: how many tokens of each row are read; those after them count as generated.
        """
        self._n_labellings += 1
        before, self._labels = (
            self._labels,
            Labels(
                prompts=tuple(self.book.add(prompts)),
                n_tokens=None if n_tokens is None else tuple(n_tokens),
                n_prompt_tokens=None if n_prompt_tokens is None else tuple(n_prompt_tokens),
                serial=self._n_labellings,
            ),
        )
        try:
            yield
            self._watch.rest()
        finally:
            self._labels = before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While open, the model runs unrecorded."""
        before, self._watch.paused = self._watch.paused, True
        try:
            yield
        finally:
            self._watch.paused = before

    def note(self, **facts: Any) -> None:
        """Write facts into the provenance when the trace is closed (overhead, tasks, note, …)."""
        self._updates |= facts

    def trace(self) -> RoutingTrace:
        """The finished trace."""
        return open_trace(self.out)

    @property
    def n_tokens(self) -> int:
        """Tokens written so far."""
        return 0 if self._pipeline is None else self._pipeline.sink.n_tokens

    def write_prompts(self) -> None:
        """Have the prompt table written with the predictions and scores so far."""
        if self._pipeline is not None:
            self._pipeline.deliver()
            self._courier.send(self._pipeline.sink.write_prompts)

    def _watching(self, sites: list[Site]) -> PassWatch | TextWatch:
        given: dict[str, Any] = {
            "sites": sites,
            "begun": self._check,
            "deliver": self._take,
            "first_heard": self._proving.heard,
            "labels": lambda: self._labels,
            "with_nll": self._with_nll,
        }
        if self.unit == "prompt":
            return TextWatch(self.inner, adapters=self._adapters, **given)
        return PassWatch(self.inner, **given)

    def _generating(self, generation: Generation | None) -> None:
        self._watch.generation = generation

    def _check(self) -> None:
        self._courier.check()

    def _take(self, one: Pass, n_rows: dict[str, int]) -> None:
        if self._pipeline is None:
            self._early.append((one, n_rows))
            # An encoder that ran by itself leaves the decoder's routers unproven: wait for them.
            if self._watch.main in n_rows:
                self._begin()
            return
        if not self._proving.complete:
            self._proving.prove_late(one.readings, sites=self._pipeline.sites, holds=self._pipeline.holds)
        self._pipeline.add(one, n_rows)

    def _begin(self) -> None:
        early, self._early = self._early, []
        sites = self._proving.settled()
        if self._compiled and self._proving.complete:
            torch._dynamo.reset()
        tasks = Conditioning(self.inner).row_names(self.book.tasks()) if hasattr(self.inner, "config") else []
        sites = [
            replace(site, facts=replace(site.facts, expert_names=tasks)) if site.facts.expert_names else site
            for site in sites
        ]
        layers = [(number, site) for number, site in enumerate(sites) if site.facts.n_experts and site.facts.top_k]
        beside = Beside(
            model_vectors([site for _, site in layers], tasks=tasks), book=self._dictionary(layers, tasks=tasks)
        )
        self._pipeline = Pipeline(
            self.out,
            sites=sites,
            first=[one for one, _ in early],
            courier=self._courier,
            book=self.book,
            ledger=self._ledger(),
            provenance=self._provenance,
            beside=beside,
            unit=self.unit,
            eager=self._compiled,
            **self._options,
        )
        for one, n_rows in early:
            self._pipeline.add(one, n_rows)

    def _ledger(self) -> RowLedger | PromptLedger:
        if self.unit == "prompt":
            return PromptLedger(self.book)
        return RowLedger(
            self.book,
            eos_ids=eos_ids_of(self.inner),
            pad_id=getattr(self.inner.config, "pad_token_id", None) if hasattr(self.inner, "config") else None,
            first_stack=self._watch.reads_first,
            generated_stacks=self._watch.written_stacks,
        )

    def _dictionary(self, layers: Sequence[tuple[int, Site]], *, tasks: Sequence[str]) -> AdapterBook | None:
        """The dictionary of generated adapters; none where nothing is generated, or only counts are kept."""
        if self.level == "counts":
            return None
        if self._adapters:
            return TaskBook(self._adapters, tasks=tasks, proof=self._adapter_proof.settled())
        if any(isinstance(site.tap, HyperMoeTap) for _, site in layers):
            return SetBook(layers)
        return None

    def _finish(self, *, complete: bool) -> None:
        failure: BaseException | None = None
        try:
            self._watch.rest()
            self._watch.forget()
            if self._pipeline is None and self._early:
                self._begin()
            if self._pipeline is not None and not self._courier.failed:
                self._pipeline.deliver()
        except BaseException as error:  # noqa: BLE001 - hooks and files come first; it is raised below
            failure = error
        finally:
            self._open.close()
        if self._pipeline is not None:
            try:
                whole = complete and failure is None and not self._courier.failed
                self._pipeline.close(complete=whole, tokenizer=self.tokenizer, **self._updates)
            except RecordingError as error:
                failure = failure or error
        self._courier.check()
        if failure is not None:
            raise failure
        if self._pipeline is None and complete:
            msg = (
                f"Nothing was recorded: the {type(self.inner).__name__} was not called. "
                "Run the model inside the Recorder's context."
            )
            raise RecordingError(msg)
