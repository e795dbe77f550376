"""What a query reads: what one turns has the effect the page tells of."""


def test_a_window_does_not_see_what_matters(open_lab):
    lab = open_lab("sparse")
    lab.preset("最近的")
    assert "远处重要的一个也看不到" in lab.said()


def test_a_high_score_is_read(open_lab):
    lab = open_lab("sparse")
    before = lab.said()
    lab.drag("scores.7", 5)
    assert lab.said() != before


def test_scaling_chooses_alike_and_learns_otherwise(open_lab):
    lab = open_lab("sparse")
    lab.preset("忘了缩放")
    assert "选的不变" in lab.said()
