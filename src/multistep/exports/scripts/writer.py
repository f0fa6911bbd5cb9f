"""Go on from a text, or answer, by an exported model, by onnxruntime, numpy and tokenizers alone.

    python run.py TEXT [TOKENS]


A model of conversations also needs jinja2, for its chat template. The likeliest token is taken each time.
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
text, most = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
if "chat_template" in about:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        (folder / about["chat_template"]).read_text(encoding="utf-8")
    )
    marks = {"bos_token": about["bos_token"] or "", "eos_token": about["eos_token"] or ""}
    text = template.render(messages=[{"role": "user", "content": text}], add_generation_prompt=True, **marks)
ids = tokenizer.encode(text, add_special_tokens="chat_template" not in about).ids
start = len(ids) if "chat_template" in about else 0
session = InferenceSession(str(folder / about["model"]))
for _ in range(most):
    logits = session.run(None, {"input_ids": np.array([ids[-about["context"] :]], np.int64)})[0]
    ids.append(int(logits[0, -1].argmax()))
    if ids[-1] in about["ends"]:
        break
print(json.dumps({"text": tokenizer.decode(ids[start:])}, ensure_ascii=False))
