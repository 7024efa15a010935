"""The sample models' tokenizer: byte-level BPE learned on the train rows."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PADDING = "<|pad|>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, context_length: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learned on texts.

    Every string can be encoded (bytes are the alphabet), and an answer that is copied from a context has the same
    tokens in both places as long as a space stands before it in both.

    Args:
        texts: what to learn the merges from; train rows alone.
        vocab_size: most tokens, the two special ones included.
        context_length: the longest prompt the model is trained on, told to those who use the tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        bos_token=END,
        pad_token=PADDING,
        # Left, because the answer is generated at the right end of a batch of prompts.
        padding_side="left",
        model_max_length=context_length,
        # The model has no segments to tell apart.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
