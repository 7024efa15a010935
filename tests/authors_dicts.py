"""State dicts with the keys and shapes that the authors' code of the three systems saves, at toy size, random by seed.

Written by hand from the documented tables, and apart from the code under test: every key is spelled here.
"""

import torch

HIDDEN, FF, HEADS, HEAD_WIDTH, VOCABULARY = 16, 20, 2, 6, 40
N_EXPERTS, EXPERT_EMBEDDING, PROCESS, INPUT, LAYER_EMBEDDING, BOTTLENECK, ADAPTER = 4, 5, 7, 6, 3, 9, 8


def drawn(shapes, *, seed, spread=0.4):
    """Tensors of the given shapes, N(0, spread²)."""
    generator = torch.Generator().manual_seed(seed)
    return {key: spread * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def _linear(name, n_out, n_in):
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _text_to_text(*, encoder_layers, decoder_layers):
    inner = HEADS * HEAD_WIDTH
    shapes = {"shared.weight": (VOCABULARY, HIDDEN)}
    for stack, depth in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        for i in range(depth):
            block = f"{stack}.block.{i}.layer"
            for place, attention in [(0, "SelfAttention")] + [(1, "EncDecAttention")] * (stack == "decoder"):
                shapes |= {f"{block}.{place}.{attention}.{x}.weight": (inner, HIDDEN) for x in "qkv"}
                shapes[f"{block}.{place}.{attention}.o.weight"] = (HIDDEN, inner)
                shapes[f"{block}.{place}.layer_norm.weight"] = (HIDDEN,)
            shapes[f"{block}.{2 if stack == 'decoder' else 1}.layer_norm.weight"] = (HIDDEN,)
        shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, HEADS)
        shapes[f"{stack}.final_layer_norm.weight"] = (HIDDEN,)
    return shapes


def _with_repeats(tensors, source, repeats):
    return tensors | {name: tensors[source] for name in repeats}


def _generator_heads(prefix, n_in):
    return (
        _linear(f"{prefix}.weight_up", HIDDEN * ADAPTER, n_in)
        | _linear(f"{prefix}.weight_down", HIDDEN * ADAPTER, n_in)
        | _linear(f"{prefix}.bias_up", HIDDEN, n_in)
        | _linear(f"{prefix}.bias_down", ADAPTER, n_in)
    )


def _hypernetwork(prefix, n_layers):
    return (
        {f"{prefix}.layer_embed.weight": (n_layers, LAYER_EMBEDDING)}
        | _linear(f"{prefix}.decoder.linear1", BOTTLENECK, INPUT + LAYER_EMBEDDING)
        | _generator_heads(f"{prefix}.decoder", BOTTLENECK)
    )


def _selection(mlp):
    return (
        {f"{mlp}.n_experts_embedding.weight": (N_EXPERTS, EXPERT_EMBEDDING)}
        | _linear(f"{mlp}.embedding_process.0", PROCESS, EXPERT_EMBEDDING)
        | _linear(f"{mlp}.embedding_process.2", INPUT, PROCESS)
        | _linear(f"{mlp}.adapter_layer.adapter_down_manual", ADAPTER, HIDDEN)
        | _linear(f"{mlp}.adapter_layer.adapter_up_manual", HIDDEN, ADAPTER)
    )


def switch_dict(*, hyper=True, seed=0):
    """HyperMoE on Switch: 4 + 2 blocks, sparse in blocks 1 and 3 of the encoder and 1 of the decoder."""
    shapes = _text_to_text(encoder_layers=4, decoder_layers=2)
    for stack, depth in (("encoder", 4), ("decoder", 2)):
        for i in range(depth):
            mlp = f"{stack}.block.{i}.layer.{2 if stack == 'decoder' else 1}.mlp"
            if i % 2 == 0:
                shapes |= {f"{mlp}.wi.weight": (FF, HIDDEN), f"{mlp}.wo.weight": (HIDDEN, FF)}
                continue
            shapes[f"{mlp}.router.classifier.weight"] = (N_EXPERTS, HIDDEN)
            for n in range(N_EXPERTS):
                shapes[f"{mlp}.experts.expert_{n}.wi.weight"] = (FF, HIDDEN)
                shapes[f"{mlp}.experts.expert_{n}.wo.weight"] = (HIDDEN, FF)
            if hyper:
                shapes |= _selection(mlp)
        if hyper:
            shapes |= _hypernetwork(f"{stack}.param_gen", depth)
    repeats = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    return _with_repeats(drawn(shapes, seed=seed), "shared.weight", repeats)


def gpt2_dict(*, hyper=True, seed=0):
    """HyperMoE on GPT-2: 2 layers, each with experts; matrices are (in, out)."""
    shapes = {
        "transformer.wte.weight": (VOCABULARY, HIDDEN),
        "transformer.wpe.weight": (12, HIDDEN),
        "transformer.ln_f.weight": (HIDDEN,),
        "transformer.ln_f.bias": (HIDDEN,),
    }
    for i in range(2):
        layer = f"transformer.h.{i}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{layer}.{norm}.weight": (HIDDEN,), f"{layer}.{norm}.bias": (HIDDEN,)}
        shapes |= {f"{layer}.attn.c_attn.weight": (HIDDEN, 3 * HIDDEN), f"{layer}.attn.c_attn.bias": (3 * HIDDEN,)}
        shapes |= {f"{layer}.attn.c_proj.weight": (HIDDEN, HIDDEN), f"{layer}.attn.c_proj.bias": (HIDDEN,)}
        shapes |= {f"{layer}.mlp.w_gate": (HIDDEN, N_EXPERTS), f"{layer}.mlp.w_noise": (HIDDEN, N_EXPERTS)}
        shapes |= {f"{layer}.mlp.mean": (1,), f"{layer}.mlp.std": (1,)}
        for n in range(N_EXPERTS):
            expert = f"{layer}.mlp.experts.expert_{n}"
            shapes |= {f"{expert}.c_fc.weight": (HIDDEN, FF), f"{expert}.c_fc.bias": (FF,)}
            shapes |= {f"{expert}.c_proj.weight": (FF, HIDDEN), f"{expert}.c_proj.bias": (HIDDEN,)}
        if hyper:
            shapes |= _selection(f"{layer}.mlp")
    if hyper:
        shapes |= _hypernetwork("transformer.param_gen", 2)
    return _with_repeats(drawn(shapes, seed=seed), "transformer.wte.weight", ("lm_head.weight",))


def pha_dict(*, n_tasks=3, width=4, encoder_adapter=5, seed=0):
    """PHA on T5: 2 + 3 blocks, prototypes of ``width``, encoder adapters of another width than the generated."""
    shapes = _text_to_text(encoder_layers=2, decoder_layers=3)
    for stack, depth, place, adapter in (("encoder", 2, 1, encoder_adapter), ("decoder", 3, 2, ADAPTER)):
        for i in range(depth):
            layer = f"{stack}.block.{i}.layer.{place}"
            shapes |= {
                f"{layer}.DenseReluDense.wi.weight": (FF, HIDDEN),
                f"{layer}.DenseReluDense.wo.weight": (HIDDEN, FF),
            }
            shapes |= _linear(f"{layer}.adapter_layer.adapter_down_manual", adapter, HIDDEN)
            shapes |= _linear(f"{layer}.adapter_layer.adapter_up_manual", HIDDEN, adapter)
    shapes |= _linear("decoder.mlp.0", 10, HIDDEN) | _linear("decoder.mlp.2", width, 10)
    shapes["decoder.adapter_task_embedding.weight"] = (n_tasks, width)
    generator = "decoder.param_gen.decoder"
    shapes["decoder.param_gen.layer_embed.weight"] = (3, width)
    shapes |= _linear(f"{generator}.linear1", 2 * width, 2 * width) | _linear(f"{generator}.linear2", width, 2 * width)
    shapes |= {f"{generator}.LayerNorm.weight": (width,), f"{generator}.LayerNorm.bias": (width,)}
    shapes |= _generator_heads(generator, width)
    repeats = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    return _with_repeats(drawn(shapes, seed=seed), "shared.weight", repeats)


PHA_CONFIG = {
    "architectures": ["T5ForConditionalGenerationWithAdapter"],
    "d_model": HIDDEN,
    "num_heads": HEADS,
    "encoder_adapter": "manual",
    "decoder_adapter": "pro-hyper",
    "adapter_norm_input": True,
    "hypernetwork_bottleneck": 128,
    "tasks": ["rte", "cola", "qnli"],
}

TASK_DIM, ROUTER_HIDDEN, M = 8, 6, 3

TASK_MOE_CONFIG = {
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "router_nn_type": "linear_layer_specific",
    "router_block_num": M,
    "router_input_dim": TASK_DIM,
    "encoder_vanilla_layers": "",
    "decoder_vanilla_layers": "",
    "scale_embedding": False,
    "num_beams": 4,
}


def _bart_layer(prefix, stack):
    shapes = {}
    for attention in ("self_attn", "encoder_attn")[: 2 if stack == "decoder" else 1]:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{prefix}.{attention}.{projection}", HIDDEN, HIDDEN)
        shapes |= {
            f"{prefix}.{attention}_layer_norm.weight": (HIDDEN,),
            f"{prefix}.{attention}_layer_norm.bias": (HIDDEN,),
        }
    shapes |= _linear(f"{prefix}.fc1", FF, HIDDEN) | _linear(f"{prefix}.fc2", HIDDEN, FF)
    return shapes | {f"{prefix}.final_layer_norm.weight": (HIDDEN,), f"{prefix}.final_layer_norm.bias": (HIDDEN,)}


def router_shapes(kind, n_layers):
    """Keys and shapes of one kind of the second version's router, below ``router.model.``."""
    h, m, dim = ROUTER_HIDDEN, M, TASK_DIM
    width = dim
    if kind == "linear_layer_specific":
        shapes = {}
        for i in range(n_layers):
            shapes |= _linear(f"router_units.{i}.linear1", h, dim) | _linear(f"router_units.{i}.linear2", m, h)
        return shapes
    if kind == "linear":
        return _linear("linear1", h, dim) | _linear("linear2", n_layers * m, h)
    if kind.endswith("_layer_specific"):
        width = h = 8 if kind.startswith("transformer") else h
        shapes = _linear("layer_specific_proj", h * n_layers, dim)
    else:
        shapes = {"pos_embed.weight": (n_layers, dim)}
    if kind.startswith("transformer"):
        layer = {"self_attn.in_proj_weight": (3 * width, width), "self_attn.in_proj_bias": (3 * width,)}
        layer |= (
            _linear("self_attn.out_proj", width, width) | _linear("linear1", 11, width) | _linear("linear2", width, 11)
        )
        layer |= {f"{norm}.{x}": (width,) for norm in ("norm1", "norm2") for x in ("weight", "bias")}
        return shapes | {f"transformer.{key}": shape for key, shape in layer.items()} | _linear("proj", m, width)
    rows = {"rnn": 1, "gru": 3, "lstm": 4}[kind.split("_")[0]] * h
    for direction in ("", "_reverse"):
        shapes |= {f"rnn.weight_ih_l0{direction}": (rows, width), f"rnn.weight_hh_l0{direction}": (rows, h)}
        shapes |= {f"rnn.bias_ih_l0{direction}": (rows,), f"rnn.bias_hh_l0{direction}": (rows,)}
    return shapes | _linear("proj", m, 2 * h)


def task_moe_dict(*, kind="linear_layer_specific", unrouted=(), seed=0):
    """Task-level MoE: 2 + 2 layers of 3 experts; ``kind`` is a router's, or v1; ``unrouted`` layers in both stacks."""
    shapes = {"model.shared.weight": (VOCABULARY, HIDDEN), "final_logits_bias": (1, VOCABULARY)}
    for stack in ("encoder", "decoder"):
        shapes[f"model.{stack}.embed_positions.weight"] = (26, HIDDEN)
        shapes |= {f"model.{stack}.layernorm_embedding.{x}": (HIDDEN,) for x in ("weight", "bias")}
        for i in range(2):
            layer = f"model.{stack}.layers.{i}"
            blocks = [layer] if i in unrouted else [f"{layer}.blocks.{j}" for j in range(M)]
            for block in blocks:
                shapes |= _bart_layer(block, stack)
            if kind == "v1":
                router = f"model.{stack}.routers.{i}"
                shapes |= _linear(f"{router}.linear1", ROUTER_HIDDEN, TASK_DIM) | _linear(
                    f"{router}.linear2", M, ROUTER_HIDDEN
                )
    if kind != "v1":
        shapes |= {f"router.model.{key}": shape for key, shape in router_shapes(kind, 4).items()}
    repeats = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return _with_repeats(drawn(shapes, seed=seed), "model.shared.weight", repeats)


def without(tensors, *ends):
    """The dict with all keys that end so left out."""
    return {key: value for key, value in tensors.items() if not key.endswith(ends)}
