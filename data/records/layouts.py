"""Annotation files of other tools: recognized by their fields or their beginning, and named with what converts them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}  # beginnings of compressed files, and what unpacks them

_OLD = "json.load(open('OLD.json', 'rb'))"
_LINES = "map(json.loads, open('OLD.json', 'rb'))"
_PICTURE = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic|jxl)\Z", re.IGNORECASE)
_FIELDS = {"image", "images", "url", "caption", "text", "question", "sentence", "clip_name"}  # of records
_SHOWN = 40  # characters of the beginning of a file that is quoted


@dataclass(frozen=True)
class Layout:
    """A layout of another tool.

    Attributes:
        name: whose it is, as it follows "this is".
        fields: a record that has all of these is in it.
        records: Python that gives our records, between the brackets of a list.
    """

    name: str
    fields: frozenset[str]
    records: str


def _layout(name: str, fields: str, records: str) -> Layout:
    return Layout(name, frozenset(fields.split()), records)


_BY_NAME = "an object of records by name; expected a list"
_LAYOUTS = (
    _layout(
        "the layout of LLaVA",
        "image conversations",
        f"{{'image': r['image'], 'caption': r['conversations'][-1]['value']}} for r in {_OLD} if 'image' in r",
    ),
    _layout(
        "a layout of chats",
        "images messages",
        f"{{'image': r['images'][0], 'caption': r['messages'][-1]['content']}} for r in {_OLD}",
    ),
    _layout(
        "the layout of NLVR2's own files",
        "identifier sentence left_url",
        "{'images': [r['identifier'].rpartition('-')[0] + '-img%d.png' % i for i in (0, 1)], "
        f"'sentence': r['sentence'], 'label': r['label'], 'identifier': r['identifier']}} for r in {_LINES}",
    ),
    _layout(
        "the layout of Label Studio",
        "annotations data",
        "{'image': r['data']['image'], 'caption': r['annotations'][0]['result'][0]['value']['text'][0]} "
        f"for r in {_OLD}",
    ),
    _layout(
        "the layout of Hugging Face's image folders",
        "file_name text",
        f"{{'image': r['file_name'], 'caption': r['text']}} for r in {_LINES}",
    ),
    _layout(
        "the layout of Visual Genome's questions",
        "qas",
        "{'dataset': 'vg', 'image': str(q['image_id']) + '.jpg', 'question': q['question'], 'question_id': q['qa_id'], "
        f"'answer': q['answer']}} for r in {_OLD} for q in r['qas']",
    ),
    _layout(
        "the layout of Visual Genome's regions",
        "regions",
        f"{{'image': str(q['image_id']) + '.jpg', 'caption': q['phrase']}} for r in {_OLD} for q in r['regions']",
    ),
    _layout(
        "the layout of MSR-VTT's own files",
        "videos sentences",
        f"{{'clip_name': s['video_id'], 'caption': s['caption']}} for s in {_OLD}['sentences']",
    ),
    # of the entries under `images`, `questions` or `annotations` in files of COCO's layout
    _layout(
        "the layout of Karpathy's splits",
        "sentences filename split",
        "{'image': i.get('filepath', '') + '/' + i['filename'], 'caption': [s['raw'] for s in i['sentences']], "
        f"'image_id': i.get('cocoid', i['imgid'])}} for i in {_OLD}['images'] if i['split'] == 'train'",
    ),
    _layout(
        "the layout of VQA v2's own questions",
        "image_id question question_id",
        "{'image': 'COCO_val2014_%012d.jpg' % q['image_id'], 'question': q['question'], 'question_id': q['question_id']"
        f"}} for q in {_OLD}['questions']",
    ),
    _layout(
        "the layout of VQA v2's own answers, which val_gt_file and test_gt_file take as they are",
        "question_id answers multiple_choice_answer",
        "",
    ),
)


def hint(record: Any) -> str:
    """What a record that does not fit looks like, and how to convert it; empty where that is not known."""
    if not isinstance(record, Mapping) or not record:
        return ""
    for layout in _LAYOUTS:
        if layout.fields <= record.keys():
            return _said(layout.name, layout.records)
    name, value = next(iter(record.items()))
    if record.keys() == {"columns", "index", "data"} or _is_column(value, record):
        orient = ", orient='split'" if "index" in record else ""
        command = f"import pandas; pandas.read_json('OLD.json'{orient}).to_json('NEW.json', orient='records')"
        return f'; this is a table by columns. To convert it: python -c "{command}"'
    if _PICTURE.search(name):
        value_of = "**v" if isinstance(value, Mapping) else "'caption': v"
        return _said(_BY_NAME, f"{{'image': k, {value_of}}} for k, v in {_OLD}.items()")
    if isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in record.values()):
        return _said(_BY_NAME, f"{{**v, 'id': k}} for k, v in {_OLD}.items()")
    for name, value in record.items() if not record.keys() & _FIELDS else ():
        if name.isidentifier() and name.isascii() and isinstance(value, list) and value and isinstance(value[0], dict):
            return _said(f"an object with a list under {name!r}; expected the list alone", f"*{_OLD}['{name}']")
    return ""


def _is_column(value: Any, record: Mapping[str, Any]) -> bool:
    """Whether a record is a whole table: `image` and the like are columns, which are lists or objects by number."""
    if not record.keys() & _FIELDS:
        return False
    return (isinstance(value, list) and len(value) > 1 and "image" in record) or (
        isinstance(value, dict) and "0" in value
    )


def _said(name: str, records: str) -> str:
    if not records:
        return f"; this is {name}"
    return f"; this is {name}. To convert it: python -c \"import json; json.dump([{records}], open('NEW.json', 'w'))\""


def hint_on_beginning(text: str) -> str:
    """What a file is that is no JSON, by its beginning."""
    first = text.partition("\n")[0]
    said = f"it begins with {first[:_SHOWN]!a}"
    if first.startswith("<"):
        return f"{said}: a page of the web in place of the file?"
    if first.startswith("version https://git-lfs"):
        return f"{said}: a pointer that `git lfs pull` replaces by the file"
    separators = [separator for separator in ("\t", "|", ",") if separator in first]
    if not separators:
        return said
    separator = {"\t": "\\t"}.get(separators[0], separators[0])
    table = f"csv.DictReader(open('OLD.csv', encoding='utf-8-sig', newline=''), delimiter='{separator}')"
    return (
        f"{said}: a table? If its first line names the columns as docs/data.md names the fields, convert it: "
        f"python -c \"import csv, json; json.dump(list({table}), open('NEW.json', 'w'))\""
    )
