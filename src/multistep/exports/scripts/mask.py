"""Fill in hidden words by an exported encoder, by onnxruntime, numpy and tokenizers alone.

python run.py "A [MASK] film"
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
encoded = tokenizer.encode(sys.argv[1].replace("[MASK]", about["mask_token"]))
values = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
session = InferenceSession(str(folder / about["model"]))
given = {each.name: np.array([values[each.name]], np.int64) for each in session.get_inputs()}
logits = session.run(None, given)[0][0].astype(np.float64)
for place in [i for i, token in enumerate(encoded.ids) if token == about["mask_id"]]:
    shares = np.exp(logits[place] - logits[place].max())
    best = np.argsort(-shares)[:5]
    words = {tokenizer.decode([int(i)]).strip(): shares[i] / shares.sum() for i in best}
    print(json.dumps(words, ensure_ascii=False))
