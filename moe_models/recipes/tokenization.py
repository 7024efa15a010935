"""The recipes' tokenizers: byte-level BPE learned on the train rows."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PADDING = "<|pad|>"
MASK = "<|mask|>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, context_length: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learned on texts, for a model that goes on where its prompt ends.

    Every string can be encoded (bytes are the alphabet), and an answer that is copied from a context has the same
    tokens in both places as long as a space stands before it in both.

    Args:
        texts: what to learn the merges from; train rows alone.
        vocab_size: most tokens, the two special ones included.
        context_length: the longest prompt the model is trained on, told to those who use the tokenizer.
    """
    # Padding left, because the answer is generated at the right end of a batch of prompts.
    return _wrapped(
        _learned(texts, vocab_size=vocab_size, special_tokens=[END, PADDING]),
        context_length=context_length,
        padding_side="left",
    )


def train_text_to_text_tokenizer(
    texts: Iterable[str], *, vocab_size: int, context_length: int, n_sentinels: int
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer for text-to-text models: with a mask token and sentinels for denoising.

    Args:
        texts: what to learn the merges from; train rows alone.
        vocab_size: most tokens, special ones included.
        context_length: the longest source the model is trained on.
        n_sentinels: tokens that stand for the spans taken out of a text, ``<|span-0|>`` and so on.
    """
    special = [END, PADDING, MASK, *(sentinel(number) for number in range(n_sentinels))]
    learned = _learned(texts, vocab_size=vocab_size, special_tokens=special)
    return _wrapped(learned, context_length=context_length, padding_side="right", mask_token=MASK)


def sentinel(number: int) -> str:
    """Return the token that stands for the span of this number."""
    return f"<|span-{number}|>"


def _learned(texts: Iterable[str], *, vocab_size: int, special_tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def _wrapped(tokenizer: Tokenizer, *, context_length: int, padding_side: str, **tokens: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        bos_token=END,
        pad_token=PADDING,
        padding_side=padding_side,
        model_max_length=context_length,
        # The models have no segments to tell apart.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **tokens,
    )
