"""The models that `model: auto` starts from: small, current, permissively licensed, by task and by what they read.

Sizes and licences are those of the models' cards, as far as they are known here; docs/how-to/pretrained.md says what of
it was measured. A licence of weights counts, not of code: ConvNeXt V2 is missing since its weights are for research
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["English", "Chinese", "any language", "photographs", "small pictures"]
CLASSIFY, HIDDEN, WRITE = "text-classification", "fill-mask", "text-generation"
IMAGES, SPEECH = "image-classification", "speech-recognition"


@dataclass(frozen=True)
class Listed:
    """A model of the hub. `active` are the parameters that work on each token, or on each of `tokens` patches or frames
    of an example: without embeddings. `megabytes` are those of the download. `chat` tells that it knows conversations.
    """

    id: str
    tasks: tuple[str, ...]
    kind: Kind
    parameters: int
    active: int
    megabytes: int
    licence: str
    why: str
    tokens: int | None = None  # of an example, where the data's own length says nothing of it
    chat: bool = False


# Of one task and kind, the best first where there is time for it.
LISTED: tuple[Listed, ...] = (
    Listed(
        "answerdotai/ModernBERT-base",
        (CLASSIFY, HIDDEN),
        "English",
        149_000_000,
        110_000_000,
        600,
        "Apache-2.0",
        "an encoder of 2024 that reads 8,192 tokens",
    ),
    Listed(
        "sentence-transformers/all-MiniLM-L6-v2",
        (CLASSIFY,),
        "English",
        22_700_000,
        10_600_000,
        92,
        "Apache-2.0",
        "trained on a billion pairs of sentences; what it gives tells topics and opinions apart before it is tuned",
    ),
    Listed(
        "distilbert/distilbert-base-uncased",
        (HIDDEN,),
        "English",
        67_000_000,
        43_000_000,
        268,
        "Apache-2.0",
        "half of a BERT, with a head for hidden words",
    ),
    Listed(
        "hfl/chinese-macbert-base",
        (HIDDEN,),
        "Chinese",
        102_000_000,
        86_000_000,
        412,
        "Apache-2.0",
        "reads characters, with a head for hidden ones",
    ),
    Listed(
        "BAAI/bge-small-zh-v1.5",
        (CLASSIFY,),
        "Chinese",
        24_000_000,
        12_700_000,
        96,
        "MIT",
        "four layers, trained on pairs of Chinese texts",
    ),
    Listed(
        "jhu-clsp/mmBERT-small",
        (HIDDEN, CLASSIFY),
        "any language",
        140_000_000,
        42_000_000,
        565,
        "MIT",
        "an encoder of 2025 for 1,800 languages that reads 8,192 tokens",
    ),
    Listed(
        "intfloat/multilingual-e5-small",
        (CLASSIFY,),
        "any language",
        118_000_000,
        21_300_000,
        490,
        "MIT",
        "trained on a billion pairs of texts in a hundred languages",
    ),
    Listed(
        "HuggingFaceTB/SmolLM2-360M",
        (WRITE,),
        "English",
        362_000_000,
        315_000_000,
        724,
        "Apache-2.0",
        "the next size",
    ),
    Listed(
        "HuggingFaceTB/SmolLM2-135M",
        (WRITE,),
        "English",
        134_500_000,
        106_000_000,
        270,
        "Apache-2.0",
        "the smallest language model of its time that writes sentences that hold together",
    ),
    Listed(
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        (WRITE,),
        "English",
        362_000_000,
        315_000_000,
        724,
        "Apache-2.0",
        "the next size",
        chat=True,
    ),
    Listed(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        (WRITE,),
        "English",
        134_500_000,
        106_000_000,
        270,
        "Apache-2.0",
        "the smallest that follows instructions, with a template for conversations",
        chat=True,
    ),
    Listed(
        "Qwen/Qwen3-0.6B-Base",
        (WRITE,),
        "any language",
        596_000_000,
        440_000_000,
        1200,
        "Apache-2.0",
        "119 languages, Chinese first of all",
    ),
    Listed(
        "Qwen/Qwen3-0.6B",
        (WRITE,),
        "any language",
        596_000_000,
        440_000_000,
        1500,
        "Apache-2.0",
        "follows instructions in 119 languages, with a template for conversations",
        chat=True,
    ),
    Listed(
        "facebook/dinov2-small",
        (IMAGES,),
        "photographs",
        22_100_000,
        21_600_000,
        88,
        "Apache-2.0",
        "trained without labels; what it gives tells most things apart before it is tuned",
        tokens=257,
    ),
    Listed(
        "microsoft/resnet-18",
        (IMAGES,),
        "photographs",
        11_700_000,
        1_820_000_000,
        47,
        "Apache-2.0",
        "the cheapest of ImageNet's that transformers loads by itself",
        tokens=1,  # `active` are multiplications of a whole image: filters are used at each place
    ),
    Listed(
        "facebook/wav2vec2-base-960h",
        (SPEECH,),
        "English",
        94_400_000,
        90_000_000,
        378,
        "Apache-2.0",
        "has learnt to write down 960 hours of read English",
    ),
    Listed(
        "facebook/wav2vec2-xls-r-300m",
        (SPEECH,),
        "any language",
        315_000_000,
        303_000_000,
        1270,
        "Apache-2.0",
        "has heard 128 languages, and learns to write with the first labels that it sees",
    ),
)


def listed_for(task: str, kind: Kind, *, chat: bool = False) -> tuple[Listed, ...]:
    """Those of a task that read such input, the best first; of texts without a list of their own, any language's."""
    found = tuple(m for m in LISTED if task in m.tasks and m.kind == kind and m.chat == chat)
    if found or kind in ("any language", "photographs", "small pictures"):
        return found
    return listed_for(task, "any language", chat=chat)


def listed_as(name: str) -> Listed | None:
    """The entry of a hub id."""
    return next((m for m in LISTED if m.id.lower() == name.lower()), None)
