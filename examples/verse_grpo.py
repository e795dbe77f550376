"""GRPO on the rules of verse with TRL, from a checkpoint of the run, on one GPU or several.

    python examples/verse_grpo.py                                           # a dry run on a CPU
    python examples/verse_grpo.py --model runs/laptop-0/cold_start --steps 50
    accelerate launch --num_processes 8 examples/verse_grpo.py --model runs/gpu-0/cold_start \\
        --corpus verses.txt --steps 400 --batch 64 --group-size 32

It is the stage `reinforce` of `python -m dsnotes.whole`: the rewards are those of
`dsnotes.whole.writing.poem_reward`, each a function of its own, weighted by TRL. A group may lie on
several processes: processes * batch must be a multiple of the group size.

Other than there: the prompts of a step are of any form, and padded. The biases of the experts stay
where pretraining left them, for transformers does not move them. The prediction module is not
loaded. Diversity is that of the poems of one process.

Needs `pip install trl accelerate` beside dsnotes.
"""

import argparse
from functools import partial, update_wrapper
from pathlib import Path

import torch
from verse_model import prepared, prompt, run

from dsnotes.data.poems import VERSE_FORMS, verses
from dsnotes.rl.novelty import Known, diversity_reward, novelty_reward
from dsnotes.rl.regulated import regulated_reward
from dsnotes.training.verses import Vocabulary, room
from dsnotes.whole.writing import every_rule_reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a folder of the run; default: a tiny stand-in")
    parser.add_argument("--corpus", type=Path, help="that of the run; default: of the package")
    parser.add_argument("--forms", nargs="+", choices=VERSE_FORMS, help="default: all, or 五絕")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--group-size", type=int, default=16, help="G, poems to a prompt")
    parser.add_argument("--batch", type=int, default=32, help="poems per device and pass")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--beta", type=float, default=0.02, help="weight of the KL")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--out", type=Path, default=Path("verse_grpo"))
    given = parser.parse_args()
    forms = given.forms or (list(VERSE_FORMS) if given.model else ["五絕"])

    # these take seconds to load: after the arguments are known to be right
    from accelerate import PartialState
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    poems = verses(given.corpus)
    vocabulary = Vocabulary.of(poems + verses(given.corpus, held_out=True))
    asked = [verse for verse in poems if verse.form in forms]
    start = given.out / "start"
    with PartialState().main_process_first():
        if not start.exists():
            prepared(given.model, vocabulary, asked, start)

    known = Known(line for verse in poems for line in verse.lines)
    new = update_wrapper(partial(novelty_reward, known=known), novelty_reward)
    on_gpu = torch.cuda.is_available()
    settings = GRPOConfig(
        output_dir=str(given.out),
        model_init_kwargs={"dtype": "float32"},
        max_steps=given.steps,
        num_generations=given.group_size,
        per_device_train_batch_size=given.batch,
        max_completion_length=max(map(room, forms)),
        learning_rate=given.learning_rate,
        lr_scheduler_type="constant_with_warmup",  # this and what follows as in `TrainState`
        warmup_steps=10,
        adam_beta2=0.95,
        weight_decay=0.1,
        temperature=1.0,
        loss_type="grpo",
        beta=given.beta,
        scale_rewards="group",
        reward_weights=[1.0, 0.5, 0.2, 0.2],
        use_cpu=not on_gpu,
        bf16=on_gpu,
        logging_steps=1,
        save_steps=50,
        report_to=[],
        seed=0,
    )
    rows = [
        {"prompt": prompt(vocabulary, verse), "form": verse.form, "rhyme": verse.rhyme}
        for verse in asked
    ]
    trainer = GRPOTrainer(
        model=str(start),
        reward_funcs=[regulated_reward, every_rule_reward, new, diversity_reward],
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(start),
    )
    run(trainer, given.out, resume=given.resume, measure="reward")


if __name__ == "__main__":
    main()
