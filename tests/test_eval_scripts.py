"""The two scripts that only evaluate: NoCaps captions for the server, and retrieval of clips."""

import json

import eval_nocaps
import eval_retrieval_video


def test_nocaps_writes_the_servers_format_and_scores_by_domain(quick, pretrained, in_demo_folder, tmp_path):
    eval_nocaps.main(
        ["--config", "configs/demo/nocaps.yaml", "--output_dir", str(tmp_path), *quick, f"pretrained={pretrained}"]
    )
    predictions = json.loads((tmp_path / "result" / "val.json").read_text())
    asked = json.loads((in_demo_folder / "output/demo/world/nocaps_val.json").read_text())
    assert [prediction["image_id"] for prediction in predictions] == [image["img_id"] for image in asked]
    assert all(prediction.keys() == {"image_id", "caption"} for prediction in predictions)
    scores = json.loads((tmp_path / "evaluate.txt").read_text())
    assert {"val_in_BLEU-4", "val_out_BLEU-4", "val_all_CIDEr"} <= set(scores)


def test_clips_are_found_the_same_on_one_process_and_two(quick, pretrained, in_demo_folder, tmp_path, torchrun_script):
    arguments = [*quick, f"pretrained={pretrained}", "k_test=3", "batch_size=2"]
    video = ["--config", "configs/demo/video.yaml", *arguments]
    eval_retrieval_video.main([*video, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "eval_retrieval_video.py", *video, "--output_dir", tmp_path / "two")
    one, two = (json.loads((tmp_path / folder / "evaluate.txt").read_text()) for folder in ("one", "two"))
    assert one == two
    assert {"txt_r1", "vid_r1", "vid_mdR", "r_mean"} <= set(one)
