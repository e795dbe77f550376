"""The stages that train, from the corpus to two small models; each a function of the `Run`.

    corpus            which poems there are, and how many keep every rule
    pretrain          a DeepSeek reads them: latent attention, experts, biases, prediction module
    cold_start        it reads those poems again that keep every rule
    reinforce         GRPO with the rules, from there
    reject            poems are sampled, and those that keep every rule and copy nothing stay
    pretrain_small    a smaller model reads the corpus
    distill           it reads the poems that stay: the student
    reinforce_small   GRPO on the smaller model instead, the student's rival

Sources
    R1 (arXiv 2501.12948): 2.3.1 cold start, 2.3.2 reinforcement learning, 2.3.3 rejection sampling,
        2.4 distillation; v1 table 6 sets distillation beside RL on the smaller model

Departures
    - R1's cold start is text written for it; here it is the better part of the corpus.
    - R1 trains its large model once more, on what rejection sampling leaves, and then by RL again.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from dsnotes.config import Config
from dsnotes.data.poems import VERSE_FORMS, Verse, parse_verses
from dsnotes.model.balance import max_vio
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.rl.novelty import novelty
from dsnotes.rl.objective import Objective
from dsnotes.rl.regulated import judge, split
from dsnotes.training.fp8.linear import convert
from dsnotes.training.state import TrainState
from dsnotes.whole.experts import balance, specialists
from dsnotes.whole.judging import evaluate
from dsnotes.whole.reading import read_poems
from dsnotes.whole.run import Result, Run
from dsnotes.whole.sizes import Reinforcement
from dsnotes.whole.writing import Prompts, poem_reward, poem_step, write

_POINTS = 60  # of a curve


def corpus(run: Run) -> Result:
    """Count the poems of each form, and how many of them keep every rule."""
    forms = {}
    for form in VERSE_FORMS:
        own = [verse for verse in run.poems if verse.form == form]
        kept = sum(keeps_every_rule(verse) for verse in own)
        forms[form] = {"poems": len(own), "rules": kept / max(len(own), 1)}
    titled = sum(bool(verse.title) for verse in run.poems) / len(run.poems)
    counts = {"poems": len(run.poems), "held_out": len(run.held_out), "titled": titled}
    return {**counts, "vocabulary": len(run.vocabulary), "forms": forms}


def pretrain(run: Run) -> Result:
    """Read the whole corpus with every mechanism of the book; `--fp8` narrows the products."""
    torch.manual_seed(run.seed)
    model = add_modules(DeepSeek(_sized(run.size.model, run)))
    if run.fp8:
        convert(model)
    history = read_poems(run, "pretrain", model, run.poems, run.size.pretrain)
    model = run.model("pretrain")
    load = torch.stack([report["load"] for report in history]).float()  # (steps, layers, experts)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "training_loss": _curve([report["loss"] for report in history]),
        "training_max_vio": _curve([max_vio(step.long()).mean().item() for step in load]),
        "specialists": specialists(model, run.vocabulary, run.held_out),
        **_judged(run, model),
    }


def cold_start(run: Run) -> Result:
    """Read the poems that keep every rule: the model shall know what it will be rewarded for."""
    poems = [verse for verse in run.poems if keeps_every_rule(verse)]
    history = read_poems(run, "cold_start", run.model("pretrain"), poems, run.size.cold_start)
    loss = _curve([report["loss"] for report in history])
    return {"read": len(poems), "training_loss": loss, **_judged(run, run.model("cold_start"))}


def reinforce(run: Run) -> Result:
    """GRPO: rules, novelty against the corpus, diversity within a batch, KL to the cold start."""
    return _reinforced(run, "reinforce", run.model("cold_start"), run.size.reinforce)


def reject(run: Run) -> Result:
    """Write poems to prompts of the corpus; keep those with every rule kept and no line copied.

    They go to `samples.txt`, in the format of the corpus.
    """
    model, generator = run.model("reinforce"), torch.Generator().manual_seed(run.seed)
    forms, rows = {}, []
    for i, form in enumerate(VERSE_FORMS):
        own = [verse for verse in run.poems if verse.form == form]
        count = run.size.sampled if own else 0
        chosen = torch.randint(max(len(own), 1), (count,), generator=generator).tolist()
        asked = [own[place] for place in chosen]
        texts = write(model, run.vocabulary, asked, sampler=run.generator(len(VERSE_FORMS) + i))
        kept = [
            Verse(verse.rhyme, tuple(split(text)), verse.title)
            for verse, text in zip(asked, texts, strict=True)
            if judge(text, form=form, rhyme=verse.rhyme).keeps_all_rules
            and novelty(text, run.known) == 1
        ]
        forms[form] = {"written": len(asked), "kept": len(kept)}
        rows += [f"{v.rhyme} {''.join(v.lines)} {v.title}".rstrip() for v in dict.fromkeys(kept)]
    (run.folder / "samples.txt").write_text("\n".join(rows) + "\n", "utf8")
    return {"forms": forms, "different": len(rows)}


def pretrain_small(run: Run) -> Result:
    """The smaller model reads the corpus, as the larger one did."""
    torch.manual_seed(run.seed)
    model = DeepSeek(_sized(run.size.small, run))
    history = read_poems(run, "pretrain_small", model, run.poems, run.size.pretrain_small)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "training_loss": _curve([report["loss"] for report in history]),
        **_judged(run, run.model("pretrain_small")),
    }


def distill(run: Run) -> Result:
    """The smaller model reads what the larger one wrote and rejection sampling left.

    Where that is less than a batch, as with models that have learned nothing, it reads the poems of
    the cold start, and `read` is 0.
    """
    poems = parse_verses((run.folder / "samples.txt").read_text("utf8").strip())
    read = len(poems)
    if read < run.size.distill.batch_size:
        poems = [verse for verse in run.poems if keeps_every_rule(verse)]
        read = 0
    history = read_poems(run, "distill", run.model("pretrain_small"), poems, run.size.distill)
    loss = _curve([report["loss"] for report in history])
    return {"read": read, "training_loss": loss, **_judged(run, run.model("distill"))}


def reinforce_small(run: Run) -> Result:
    """GRPO on the smaller model, from where the student started too."""
    model, how = run.model("pretrain_small"), run.size.reinforce_small
    return _reinforced(run, "reinforce_small", model, how)


def keeps_every_rule(verse: Verse) -> bool:
    """Whether a poem of the corpus keeps every rule of `rl.regulated`."""
    return judge(verse.text, form=verse.form, rhyme=verse.rhyme).keeps_all_rules


def _reinforced(run: Run, name: str, model: DeepSeek, how: Reinforcement) -> Result:
    state = TrainState.create(
        model,
        steps=how.steps,
        learning_rate=how.learning_rate,
        cooldown=how.cooldown,
        seed=run.seed,
    )
    step = partial(
        poem_step,
        vocabulary=run.vocabulary,
        asking=Prompts(run.poems),
        reward=poem_reward(run.known),
        prompts=how.prompts,
        group_size=how.group_size,
        objective=Objective(beta=how.beta),
    )
    history = run.train(name, state, step)
    curves = {key: _curve([report[key] for report in history]) for key in history[0]}
    return {"curves": curves, **_judged(run, run.model(name))}


def _judged(run: Run, model: DeepSeek) -> dict[str, Any]:
    found = evaluate(
        model, run.vocabulary, run.held_out, run.known, per_form=run.size.judged, seed=run.seed
    )
    found["max_vio"] = balance(model, run.vocabulary, run.held_out)
    shares = ", ".join(f"{form} {own['rules']:.0%}" for form, own in found["forms"].items())
    run.say(f"every rule kept: {shares}; loss {found['loss']:.3f}")
    return found


def _sized(config: Config, run: Run) -> Config:
    return replace(config, vocab_size=len(run.vocabulary))


def _curve(values: Sequence[float]) -> list[float]:
    """At most `_POINTS` means of neighbours."""
    width = -(-len(values) // _POINTS)
    chunks = torch.tensor(values, dtype=torch.float64).split(width)
    return [round(chunk.mean().item(), 4) for chunk in chunks]
