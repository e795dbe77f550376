"""Supervised training on poems with TRL: the cold start, or the student's lesson.

    python examples/verse_sft.py                                            # a dry run on a CPU
    accelerate launch --num_processes 8 examples/verse_sft.py --model runs/gpu-0/pretrain \\
        --corpus verses.txt --steps 200 --batch 48
    python examples/verse_sft.py --model runs/gpu-0/pretrain_small --corpus verses.txt \\
        --poems runs/gpu-0/samples.txt --steps 400

Without `--poems` it reads those poems of the corpus that keep every rule, which is the stage
`cold_start` of `python -m dsnotes.whole`; with the poems that rejection sampling left it is
`distill`. The loss is that of all tokens, prompt included, as there; neither the prediction module
nor the biases of the experts are trained.

Needs `pip install trl accelerate` beside dsnotes.
"""

import argparse
from pathlib import Path

import torch
from verse_model import prepared, prompt, run

from dsnotes.data.poems import parse_verses, verses
from dsnotes.training.verses import Vocabulary
from dsnotes.whole.stages import keeps_every_rule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a folder of the run; default: a tiny stand-in")
    parser.add_argument("--corpus", type=Path, help="that of the run; default: of the package")
    parser.add_argument("--poems", type=Path, help="what to read instead, in the same format")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="poems per device and step")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--out", type=Path, default=Path("verse_sft"))
    given = parser.parse_args()

    # these take seconds to load: after the arguments are known to be right
    from accelerate import PartialState
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    corpus = verses(given.corpus)
    vocabulary = Vocabulary.of(corpus + verses(given.corpus, held_out=True))
    if given.poems is None:
        poems = [verse for verse in corpus if keeps_every_rule(verse)]
    else:
        poems = list(parse_verses(given.poems.read_text("utf8").strip()))
    start = given.out / "start"
    with PartialState().main_process_first():
        if not start.exists():
            prepared(given.model, vocabulary, poems, start)

    on_gpu = torch.cuda.is_available()
    settings = SFTConfig(
        output_dir=str(given.out),
        model_init_kwargs={"dtype": "float32"},
        max_steps=given.steps,
        per_device_train_batch_size=given.batch,
        learning_rate=given.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(10, given.steps // 2),
        adam_beta2=0.95,
        weight_decay=0.1,
        completion_only_loss=False,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        logging_steps=1,
        save_steps=50,
        report_to=[],
        seed=0,
    )
    rows = [{"prompt": prompt(vocabulary, verse), "completion": verse.text} for verse in poems]
    trainer = SFTTrainer(
        model=str(start),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(start),
    )
    run(trainer, given.out, resume=given.resume, measure="loss")


if __name__ == "__main__":
    main()
