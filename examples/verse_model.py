"""The verse model and its characters as transformers knows them, for the scripts of TRL beside it.

A checkpoint of `python -m dsnotes.whole` has the released layout, and transformers loads it as
`DeepseekV3ForCausalLM`. What it lacks is a tokenizer: here one is made of the vocabulary, a token
for a character.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dsnotes.data.poems import Verse
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import TrainState
from dsnotes.training.verses import END, PAD, Vocabulary, batches
from dsnotes.weights.hf import to_transformers
from dsnotes.whole.sizes import SIZES
from dsnotes.whole.writing import prompt_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Trainer

STAND_IN_STEPS = 200


def tokenizer(vocabulary: Vocabulary) -> "PreTrainedTokenizerFast":
    """A name in angle brackets is a token, and so is every other character.

    Only <pad> and <end> are special, which decoding leaves out: a form or a <text> within a poem
    stays in its text, and breaks the rules.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pad, end = vocabulary.symbols[PAD], vocabulary.symbols[END]
    ids = {symbol: i for i, symbol in enumerate(vocabulary.symbols)}
    words = Tokenizer(models.WordLevel(ids, unk_token=pad))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("<[^>]*>|."), "removed", invert=True)
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, eos_token=end, padding_side="left"
    )


def prompt(vocabulary: Vocabulary, verse: Verse) -> str:
    """What asks for such a poem, as text: <五絕><尤>登樓<text>."""
    return "".join(vocabulary.symbols[token] for token in vocabulary.prompt(*prompt_of(verse)))


def prepared(
    folder: Path | None, vocabulary: Vocabulary, poems: Sequence[Verse], start: Path
) -> None:
    """Write a folder that TRL starts from: the model of `folder`, and the tokenizer.

    None takes a tiny one, which has read poems for some seconds and often gets the form right.
    """
    from transformers import DeepseekV3ForCausalLM

    if folder is None:
        model = to_transformers(stand_in(vocabulary, poems))
    else:
        model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"the corpus has {len(vocabulary)} tokens, and the model in {folder} "
            f"{model.config.vocab_size}: --corpus must be the file that it was trained on"
        )
    model.save_pretrained(start)
    tokenizer(vocabulary).save_pretrained(start)


def stand_in(vocabulary: Vocabulary, poems: Sequence[Verse]) -> DeepSeek:
    """A model without prediction module, for a run of a few steps that shows that all parts fit."""
    torch.manual_seed(0)
    model = DeepSeek(replace(SIZES["tiny"].small, vocab_size=len(vocabulary)))
    state = TrainState.create(model, steps=STAND_IN_STEPS, learning_rate=1e-2, cooldown=0.5)
    data = batches(poems, vocabulary, steps=STAND_IN_STEPS, batch_size=32, seed=0)
    step = partial(language_step, gamma=0.01, padding=PAD)
    list(train(state, step, data, progress=False))
    return model


def run(trainer: "Trainer", out: Path, *, resume: bool, measure: str) -> None:
    """Train to the end; `out` then holds the model, and the entries of the log with `measure`."""
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(str(out / "model"))
    if trainer.accelerator.is_main_process:
        history = [entry for entry in trainer.state.log_history if measure in entry]
        (out / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")
        print(f"{len(history)} steps, {trainer.accelerator.num_processes} process(es)")
