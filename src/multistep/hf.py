"""Tells transformers of the nets that `multistep` trains from nothing, so that they load where other models load.

    import multistep.hf
    from transformers import AutoModelForImageClassification, pipeline

    model = AutoModelForImageClassification.from_pretrained("RUN/model")
    classify = pipeline("image-classification", model="RUN/model")

Importing it is all; no code comes out of a model folder, and `trust_remote_code` is not needed. Models of other makers
load and run as before. `AutoModelForSequenceClassification` and the pipeline "text-classification", `AutoModelForCTC`
and "automatic-speech-recognition", `AutoImageProcessor`, `AutoFeatureExtractor`, `AutoTokenizer` and `AutoProcessor`
know the nets as well.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    Wav2Vec2CTCTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from multistep.tasks.images.hf import (
    MultistepForImageClassification,
    MultistepImageConfig,
    MultistepImagePipeline,
    MultistepImageProcessor,
)
from multistep.tasks.language.hf import (
    MultistepForSequenceClassification,
    MultistepTextConfig,
    MultistepTextTokenizer,
)
from multistep.tasks.speech.hf import (
    MultistepFeatureExtractor,
    MultistepForCTC,
    MultistepSpeechConfig,
    MultistepSpeechPipeline,
    MultistepSpeechProcessor,
)

__all__ = [
    "MultistepFeatureExtractor",
    "MultistepForCTC",
    "MultistepForImageClassification",
    "MultistepForSequenceClassification",
    "MultistepImageConfig",
    "MultistepImagePipeline",
    "MultistepImageProcessor",
    "MultistepSpeechConfig",
    "MultistepSpeechPipeline",
    "MultistepSpeechProcessor",
    "MultistepTextConfig",
    "MultistepTextTokenizer",
]


def _register() -> None:
    AutoConfig.register(MultistepImageConfig.model_type, MultistepImageConfig, exist_ok=True)
    AutoModelForImageClassification.register(MultistepImageConfig, MultistepForImageClassification, exist_ok=True)
    backends: dict[str, type] = {"pil": MultistepImageProcessor, "torchvision": MultistepImageProcessor}
    AutoImageProcessor.register(MultistepImageConfig, image_processor_classes=backends, exist_ok=True)
    AutoConfig.register(MultistepTextConfig.model_type, MultistepTextConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(MultistepTextConfig, MultistepForSequenceClassification, exist_ok=True)
    AutoTokenizer.register(MultistepTextConfig, slow_tokenizer_class=MultistepTextTokenizer, exist_ok=True)
    AutoConfig.register(MultistepSpeechConfig.model_type, MultistepSpeechConfig, exist_ok=True)
    AutoModelForCTC.register(MultistepSpeechConfig, MultistepForCTC, exist_ok=True)
    AutoFeatureExtractor.register(MultistepSpeechConfig, MultistepFeatureExtractor, exist_ok=True)
    AutoTokenizer.register(MultistepSpeechConfig, slow_tokenizer_class=Wav2Vec2CTCTokenizer, exist_ok=True)
    AutoProcessor.register(MultistepSpeechConfig, MultistepSpeechProcessor, exist_ok=True)
    # Subclasses that do what their parents do for every other model. Set here and not by `register_pipeline`, which
    # warns, and forgets a task's default model and type.
    PIPELINE_REGISTRY.supported_tasks["image-classification"]["impl"] = MultistepImagePipeline
    PIPELINE_REGISTRY.supported_tasks["automatic-speech-recognition"]["impl"] = MultistepSpeechPipeline


_register()
