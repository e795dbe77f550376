"""What a query reads: what one turns has the effect the page tells of."""


def test_a_window_alone_reads_its_window(open_lab):
    lab = open_lab("compressed")
    lab.preset("窗口")
    assert "只有窗口" in lab.said()
    assert "读 8 个向量" in lab.said()


def test_a_short_window_leaves_a_hole_in_hca(open_lab):
    lab = open_lab("compressed")
    lab.preset("HCA")
    lab.drag("t", 60)
    assert "哪里都看不见" in lab.said()
    lab.slide("window", 16)
    assert "都在某一处" in lab.said()


def test_an_indexer_that_sees_the_future(open_lab):
    lab = open_lab("compressed")
    lab.preset("常见错误 5")
    assert "白白丢掉" in lab.said()
