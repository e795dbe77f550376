"""The ledger of keys and values: what one turns has the effect the page tells of."""


def test_a_short_text_is_mostly_window(open_lab):
    lab = open_lab("ledger")
    assert "9.21 GB" in lab.drawn()  # V3, 131,072 tokens
    lab.preset("一段话")
    assert "大半是窗口" in lab.said()
    lab.preset("一百万")
    assert "大半是窗口" not in lab.said()
    assert "73.7 GB" in lab.drawn()


def test_window_and_entries_are_even_below_a_thousand_tokens(open_lab):
    lab = open_lab("ledger")
    lab.slide("context", 22)  # per cent of the way, in the logarithm: 929 tokens
    assert lab.goals()[0].startswith("做到了")
    assert not lab.goals()[1]


def test_a_card_that_is_just_too_small_for_v3(open_lab):
    lab = open_lab("ledger")
    lab.slide("card", 24)
    lab.slide("context", 88)  # 356,000 tokens
    assert lab.goals()[1].startswith("做到了")
