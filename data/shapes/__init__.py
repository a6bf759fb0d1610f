"""The embedded world: drawn scenes with everything that BLIP trains on, so that one laptop runs the whole recipe.

    python -m data.shapes --out output/shapes --images 10000 --seed 0 --noise 0.3

A scene holds 1 to 4 things, each with a shape, a color, a size and a fill; texts speak of these, of counts and of where
things stand. `out` then holds

    images/SPLIT/*.jpg      train, val, test, nocaps: a tenth of all (4 to 500) each, the rest for train
    pretrain.json           {image, caption}; a share `noise` of the captions is wrong: noise.json names them
    caption_*.json          train {image, caption, image_id}; val, test {image, caption: [..]}, COCO ground truth (*_gt)
    retrieval_*.json        the same with captions that mention all there is, so that they tell pictures apart
    vqa_*.json, vg_qa.json  records of both kinds, answer_list.json, official questions and annotations to score by
    nlvr_*.json             {images, sentence, label, identifier}; each sentence is true of two pairs and false of two
    nocaps_val*.json        shape-color pairs that training never shows, ground truth by domain
    videos/*.mp4            moving scenes, video_test.jsonl {clip_name, caption}
    scenes.json             what each picture shows, for `caption_is_right`
    vocab.txt               a WordPiece vocabulary of about 200 entries
    world.json              the settings

Image paths are relative to `images/`. The same settings give the same pictures and texts in any process;
what is written for picture k of a split does not depend on how many pictures follow.
"""

from data.shapes.caption_check import caption_is_right
from data.shapes.scene import Scene, Thing
from data.shapes.world import build_world, read_scenes

__all__ = ["Scene", "Thing", "build_world", "caption_is_right", "read_scenes"]
