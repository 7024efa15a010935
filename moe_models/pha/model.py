"""PHA: a frozen text-to-text model whose decoder adapters are generated from a prototype of the task.

References:
    Zhao et al., EMNLP 2023, "Prototype-based HyperAdapter for Sample-Efficient Multi-task Tuning".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Stack

from moe_models.adapters import AdapterWeights, ConditioningEmbedding, KeepsOwnInitialization
from moe_models.pha.contrast import instance_contrast, prototype_contrast
from moe_models.pha.parts import (
    AdaptedFeedForward,
    GeneratedAdapter,
    PrototypicalHypernetwork,
    Retriever,
    TaskAdapter,
    shared_adapter,
)
from moe_models.tasks import KnowsTasks

SOURCES = ("prototype", "instance", "shared", "task")


@strict
class PhaConfig(T5Config):
    """A T5 configuration plus PHA's widths, its tasks and the weights of its losses.

    ``tasks`` is the only map from prototype row to task, in a fixed order. ``adapter_source`` is ``prototype`` for the
    method; ``instance`` (the generator sees each example's own vector), ``shared`` (one learned adapter a layer) and
    ``task`` (every task its own learned adapters, in encoder and decoder; nothing is shared but the frozen backbone)
    are controls. The control without contrast is the method with ``contrast_weight`` 0. ``task_aliases`` gives tasks
    other names that they go by.

    Four options follow the authors' code where it differs from our defaults: biases in the generator, the epsilon of
    its norm, an encoder adapter of another width than the decoder's, and adapters that take h instead of LN h.
    """

    model_type = "pha"

    tasks: list[str] = field(default_factory=list)
    task_aliases: dict[str, str] = field(default_factory=dict)
    adapter_source: str = "prototype"
    adapter_dim: int = 32
    prototype_dim: int = 64
    retriever_dim: int = 128
    contrast_weight: float = 0.1
    contrast_temperature: float = 0.1
    label_smoothing: float = 0.1
    generator_bias: bool = False
    generator_norm_epsilon: float = 1e-5
    encoder_adapter_dim: int | None = None
    adapter_normed_input: bool = True


@dataclass
class PhaOutput(Seq2SeqLMOutput):
    """T5's output, the parts of the loss, and the vectors PHA is about.

    ``instance_vectors`` (B, z), ``language_loss``, ``instance_loss`` and ``prototype_loss`` are scalars in nats;
    ``language_loss`` is the mean over target tokens (padding left out), label smoothing included.
    """

    language_loss: torch.Tensor | None = None
    instance_loss: torch.Tensor | None = None
    prototype_loss: torch.Tensor | None = None
    instance_vectors: torch.Tensor | None = None


class PhaStack(KeepsOwnInitialization, T5Stack):
    """T5's encoder or decoder with an adapter beside each feed-forward: learned in the encoder, set in the decoder."""

    config_class = PhaConfig

    def __init__(self, config: PhaConfig) -> None:
        super().__init__(config)
        for block in self.block:
            if config.adapter_source == "task":
                adapter = TaskAdapter(len(config.tasks), config.d_model, config.adapter_dim)
            elif config.is_decoder and config.adapter_source != "shared":
                adapter = GeneratedAdapter()
            else:
                adapter = shared_adapter(config)
            block.layer[-1] = AdaptedFeedForward(config, adapter)
        self.post_init()


class PhaForConditionalGeneration(KnowsTasks, KeepsOwnInitialization, T5ForConditionalGeneration):
    """T5 with shared encoder adapters, and decoder adapters generated for the task of each example."""

    config_class = PhaConfig

    def __init__(self, config: PhaConfig) -> None:
        super().__init__(config)
        if config.adapter_source not in SOURCES:
            msg = f"There is no adapter source {config.adapter_source!r}. Choose one of {', '.join(SOURCES)}."
            raise ValueError(msg)
        if not config.tasks:
            msg = "PHA has one prototype a task and was given no tasks. Set PhaConfig(tasks=[…])."
            raise ValueError(msg)
        self.encoder = PhaStack(self.encoder.config)
        self.decoder = PhaStack(self.decoder.config)
        self.retriever = Retriever(config.d_model, config.retriever_dim, config.prototype_dim)
        self.prototypes = ConditioningEmbedding(len(config.tasks), config.prototype_dim)
        self.hypernetwork = PrototypicalHypernetwork(
            n_layers=config.num_decoder_layers,
            prototype=config.prototype_dim,
            hidden=config.d_model,
            width=config.adapter_dim,
            bias=config.generator_bias,
            norm_epsilon=config.generator_norm_epsilon,
        )
        self.post_init()

    def freeze_backbone(self) -> None:
        """Leave only what PHA adds trainable: encoder adapters, retriever, prototypes, hypernetwork."""
        added = ("adapter", "retriever", "prototypes", "hypernetwork")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(part in name for part in added))

    def task_adapters(self) -> list[AdapterWeights]:
        """For each decoder layer, the adapters of all tasks in the order of ``config.tasks``; from weights alone."""
        return self.hypernetwork(self.prototypes.weight)

    @contextmanager
    def told(self, task_ids: torch.Tensor | None) -> Iterator[None]:
        """Run encoder and decoder with adapters that belong to the tasks of the examples, where there are any."""
        places = [module for module in self.modules() if isinstance(module, TaskAdapter)]
        try:
            for place in places:
                place.rows = task_ids
            yield
        finally:
            for place in places:
                place.rows = None

    @contextmanager
    def adapted(self, vectors: torch.Tensor) -> Iterator[None]:
        """Run the decoder with adapters generated from one vector an example: (B, z)."""
        places = [module for module in self.decoder.modules() if isinstance(module, GeneratedAdapter)]
        try:
            if places:
                distinct, which = vectors.unique(dim=0, return_inverse=True) if not self.training else (vectors, None)
                for place, adapters in zip(places, self.hypernetwork(distinct), strict=True):
                    place.current = adapters if which is None else adapters[which]
            yield
        finally:
            for place in places:
                place.current = None

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        task_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        encoder_outputs=None,  # noqa: ANN001
        **kwargs,  # noqa: ANN003
    ) -> PhaOutput:
        """T5's forward for examples of the tasks ``task_ids`` (B); inside ``adapted`` they may be left out."""
        if self.config.adapter_source == "task" and task_ids is not None:
            with self.told(task_ids):
                return self._run(input_ids, attention_mask, task_ids, labels, encoder_outputs, kwargs)
        return self._run(input_ids, attention_mask, task_ids, labels, encoder_outputs, kwargs)

    def _run(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        task_ids: torch.Tensor | None,
        labels: torch.Tensor | None,
        encoder_outputs,  # noqa: ANN001
        kwargs: dict,
    ) -> PhaOutput:
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        encoded = encoder_outputs[0]
        mask = attention_mask if attention_mask is not None else encoded.new_ones(encoded.shape[:2])
        vectors = self.retriever(encoded, mask)
        run = super().forward
        inputs = {"attention_mask": attention_mask, "encoder_outputs": encoder_outputs, **kwargs}
        if labels is not None and "decoder_input_ids" not in kwargs:
            inputs["decoder_input_ids"] = self._shift_right(labels)
        if task_ids is None:
            out = run(**inputs)
        else:
            source = vectors if self.config.adapter_source == "instance" else self.prototypes(task_ids)
            with self.adapted(source):
                out = run(**inputs)
        losses = {} if labels is None else self._losses(out.logits, labels, vectors, task_ids)
        return PhaOutput(**out, **losses, instance_vectors=vectors)

    def _losses(
        self, logits: torch.Tensor, labels: torch.Tensor, vectors: torch.Tensor, task_ids: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        config = self.config
        language = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), label_smoothing=config.label_smoothing
        )
        losses = {"language_loss": language, "loss": language}
        if task_ids is not None and config.contrast_weight > 0:
            tau = config.contrast_temperature
            losses["instance_loss"] = instance_contrast(vectors.float(), task_ids, temperature=tau)
            losses["prototype_loss"] = prototype_contrast(
                vectors.float(), task_ids, self.prototypes.weight.float(), temperature=tau
            )
            contrast = losses["instance_loss"] + losses["prototype_loss"]
            losses["loss"] = language + config.contrast_weight * contrast
        return losses

    @torch.no_grad()
    def retrieved_tasks(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The task whose prototype is nearest each example by cosine: (B)."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        unit = functional.normalize(self.retriever(encoded, attention_mask), dim=-1)
        return (unit @ functional.normalize(self.prototypes.weight, dim=-1).T).argmax(dim=-1)

    @torch.no_grad()
    def generate(self, input_ids: torch.Tensor, *, task_ids: torch.Tensor | None = None, **kwargs) -> torch.Tensor:  # noqa: ANN003
        """T5's ``generate`` with the adapters of ``task_ids`` (B), made once for all steps."""
        if task_ids is None:
            return super().generate(input_ids, **kwargs)
        vectors = self.prototypes(task_ids)
        if self.config.adapter_source == "task":
            with self.told(task_ids):
                return super().generate(input_ids, **kwargs)
        if self.config.adapter_source == "instance":
            mask = kwargs.get("attention_mask")
            mask = torch.ones_like(input_ids) if mask is None else mask
            vectors = self.retriever(self.encoder(input_ids=input_ids, attention_mask=mask)[0], mask)
        with self.adapted(vectors):
            return super().generate(input_ids, **kwargs)


def backbone_loaded(model: PhaForConditionalGeneration, backbone: nn.Module) -> PhaForConditionalGeneration:
    """``model`` with the weights of a pretrained T5 of the same widths, and the backbone frozen.

    Raises:
        ValueError: the T5 lacks a weight that the model's backbone has.
    """
    missing, unexpected = model.load_state_dict(backbone.state_dict(), strict=False)
    added = ("adapter", "retriever", "prototypes", "hypernetwork")
    if lost := [name for name in missing if not any(part in name for part in added)] + list(unexpected):
        msg = f"The backbone does not fit: {lost[:3]} and {len(lost) - 1} more differ. Use a T5 of the same widths."
        raise ValueError(msg)
    model.freeze_backbone()
    return model
