"""Say what an exported encoder makes of texts, by onnxruntime, numpy and tokenizers alone.

python run.py TEXT [SECOND]
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

folder = Path(__file__).parent
about = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / about["tokenizer"]))
tokenizer.no_padding()
tokenizer.enable_truncation(about["longest"])
encoded = tokenizer.encode(*sys.argv[1:])
values = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
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
