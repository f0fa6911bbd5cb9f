"""Say what an exported bag or convolutional net makes of texts, by onnxruntime and numpy alone.

python run.py TEXT [SECOND]
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

folder = Path(__file__).parent
about = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
lines = (folder / about["vocabulary"]).read_bytes().decode("utf-8").split("\n")[:-1]
known = {line: i for i, line in enumerate(lines, 2)}  # 0 is no word at all, 1 one that is not known


def read(text):
    text = text.lower()
    words = list("".join(text.split())) if about["spaceless"] else re.findall(r"[\w'\u2019]+|[^\w\s]", text)
    if about["reads"] == "cnn":
        return [known.get(word, 1) for word in words][: about["longest"]] or [1]
    keys = []  # words, pairs of them, and pieces of three to five characters; of scripts without spaces characters
    for i, word in enumerate(words):
        keys += [word, *([word + " " * (not about["spaceless"]) + words[i + 1]] if i + 1 < len(words) else [])]
        marked = words[i : i + 4] if about["spaceless"] else f"<{word[:30]}>"
        for size in (3, 4) if about["spaceless"] else (3, 4, 5):
            starts = range(min(1, len(marked) - size + 1) if about["spaceless"] else len(marked) - size + 1)
            keys += [" " + "".join(marked[start : start + size]) for start in starts]
    return list(dict.fromkeys(known[key] for key in keys if key in known))[: about["longest"]] or [1]


parts = [read(text) for text in sys.argv[1:]]
values = {"input_ids": sum(parts, []), "token_type_ids": [i for i, part in enumerate(parts) for _ in part]}
session = InferenceSession(str(folder / about["model"]))
given = {each.name: np.array([values[each.name]], np.int64) for each in session.get_inputs()}
logits = session.run(None, given)[0][0].astype(np.float64)
if about["kind"] == "number":
    print(json.dumps({"value": logits[0]}))
else:
    x = logits / about["temperature"]
    several = about["kind"] == "classes"
    shares = 1 / (1 + np.exp(-x)) if several else np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    print(json.dumps(dict(zip(about["labels"], shares.tolist())), ensure_ascii=False))
