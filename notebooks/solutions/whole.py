"""Answers to the blank cells of whole.ipynb."""

# %% whole-1
# 每层的潜在向量，加上各头共用的带位置的键
latent = 4 * laptop.num_hidden_layers * (laptop.kv_lora_rank + laptop.qk_rope_head_dim)
key = laptop.qk_nope_head_dim + laptop.qk_rope_head_dim
by_head = 4 * laptop.num_hidden_layers * laptop.num_attention_heads * (key + laptop.v_head_dim)

# %% whole-1 wrong: the key with a position is forgotten
latent = 4 * laptop.num_hidden_layers * laptop.kv_lora_rank
by_head = 4 * laptop.num_hidden_layers * laptop.num_attention_heads * 2 * laptop.v_head_dim

# %% whole-1 wrong: one layer
latent = 4 * (laptop.kv_lora_rank + laptop.qk_rope_head_dim)
by_head = 4 * laptop.num_attention_heads * (laptop.qk_head_dim + laptop.v_head_dim)


# %% whole-2
def reached(ours, base):
    return (
        min(form["rules"] for form in ours["forms"].values()) >= 0.9
        and ours["copied"] <= base["copied"]
        and ours["characters"] >= 0.7 * base["characters"]
    )


# %% whole-2 wrong: the mean over the forms
def reached(ours, base):
    shares = [form["rules"] for form in ours["forms"].values()]
    return (
        sum(shares) / len(shares) >= 0.9
        and ours["copied"] <= base["copied"]
        and ours["characters"] >= 0.7 * base["characters"]
    )


# %% whole-2 wrong: what it costs is forgotten
def reached(ours, base):
    return all(form["rules"] >= 0.9 for form in ours["forms"].values())


# %% whole-3
def keep(texts, form, rhyme, known):
    kept = [
        text
        for text in texts
        if judge(text, form=form, rhyme=rhyme).keeps_all_rules and novelty(text, known) == 1
    ]
    return list(dict.fromkeys(kept))  # 字典留住次序


# %% whole-3 wrong: a poem twice
def keep(texts, form, rhyme, known):
    return [
        text
        for text in texts
        if judge(text, form=form, rhyme=rhyme).keeps_all_rules and novelty(text, known) == 1
    ]


# %% whole-3 wrong: only lines that are quite the same count as copied
def keep(texts, form, rhyme, known):
    kept = [
        text
        for text in texts
        if judge(text, form=form, rhyme=rhyme).keeps_all_rules
        and not any(known.has(line) for line in split(text))
    ]
    return list(dict.fromkeys(kept))


# %% whole-4
# 首数相同的两批，才能比用到的字
before_rl, after_rl = (
    runs["gpu"][0]["models"][title]["forms"]["七絕"]["characters"] for title in ("base", "RL")
)
kept_characters = after_rl / before_rl

# %% whole-4 wrong: all forms
kept_characters = runs["gpu"][0]["models"]["RL"]["characters_of_base"] + 0.1
