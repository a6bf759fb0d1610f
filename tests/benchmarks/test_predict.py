"""What `benchmarks.predict` makes of the seconds and captions of its ways."""

from benchmarks.predict import ratios, same_captions


def test_ratios_are_of_each_other_way_to_ours():
    ours, slow, fast = ({"wall": wall, "processor": busy} for wall, busy in ((2.0, 4.0), (5.0, 6.0), (1.0, 2.0)))
    found = ratios({"ours": ours, "hugging_face": slow, "openvino": fast})
    assert found == {"hugging_face": {"wall": 2.5, "processor": 1.5}, "openvino": {"wall": 0.5, "processor": 0.5}}


def test_captions_are_compared_picture_by_picture_for_each_two_ways():
    found = same_captions({"ours": ["a", "b"], "hugging_face": ["b", "a"], "openvino": ["b", "b"]})
    assert found == {"ours, hugging_face": 0.0, "ours, openvino": 0.5, "hugging_face, openvino": 0.5}
