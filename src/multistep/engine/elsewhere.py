"""What settings are called by other trainers, and what they are called here: for messages, and for short options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from multistep.core.values.plan import DataSpec, ModelSpec
from multistep.core.values.recipe import RECIPE_KEYS
from multistep.errors import PlanError, nearest

# Short keywords and options, and the key that each stands for.
SHORT_KEYS: Mapping[str, str] = {
    "lr": "recipe.learning_rate",
    "learning_rate": "recipe.learning_rate",
    "batch_size": "recipe.batch_size",
    "optimizer": "recipe.optimizer",
    "epochs": "budget",
    "steps": "budget",
}

_BY_KEY: Mapping[str, str] = {
    "recipe.learning_rate": "lr lr0 learningrate learning_rate_init base_lr max_lr peak_lr initial_lr init_lr eta rate",
    "recipe.batch_size": (
        "batch bs batchsize train_batch_size per_device_train_batch_size per_gpu_train_batch_size micro_batch_size "
        "per_device_batch_size global_batch_size minibatch_size batch_size_per_device"
    ),
    "recipe.optimizer": "optim optimiser opt optimizer_name optimizer_type solver optim_type",
    "recipe.weight_decay": "wd decay l2 weightdecay l2_regularization regularization",
    "recipe.momentum": "sgd_momentum beta1",
    "recipe.betas": "adam_betas adam_beta1 adam_beta2 beta2",
    "recipe.warmup_steps": "warmup num_warmup_steps warmup_iters lr_warmup_steps warmup_steps_count",
    "recipe.schedule": "scheduler lr_scheduler lr_scheduler_type lr_schedule sched lr_scheduler_name",
    "recipe.cooldown": "lr_decay decay_schedule annealing",
    "recipe.gradient_clip": (
        "grad_clip max_grad_norm gradient_clip_val clip_grad_norm clip clipnorm gradient_clipping clip_norm"
    ),
    "recipe.label_smoothing": "smoothing label_smoothing_factor",
    "recipe.precision": "amp fp16 bf16 mixed_precision half dtype torch_dtype use_amp",
    "recipe.resolution": "imgsz image_size img_size input_size image_resolution res",
    "recipe.dropout": "drop drop_rate dropout_rate hidden_dropout_prob p_dropout",
    "recipe.augmentation": "augment augmentations aug data_augmentation",
    "recipe.averaging": "ema ema_decay model_ema swa polyak",
    "recipe.frozen": "freeze frozen_layers freeze_layers trainable freeze_backbone",
    "recipe.layer_decay": "llrd layerwise_lr_decay layer_wise_decay",
    "recipe.sharpness": "sam rho sam_rho",
    "recipe.adapter": "lora peft use_lora peft_type use_peft finetune_type load_in_4bit qlora use_qlora dora",
    "recipe.adapter_rank": "lora_r lora_rank r rank lora_dim",
    "recipe.adapter_alpha": "lora_alpha alpha",
    "recipe.adapter_targets": "target_modules lora_target_modules lora_target lora_modules",
    "recipe.beta": "dpo_beta",
    "recipe.checkpointing": (
        "gradient_checkpointing activation_checkpointing use_gradient_checkpointing grad_checkpointing "
        "activation_recomputation"
    ),
    "recipe.sharding": "fsdp fsdp2 fully_shard sharding_strategy fsdp_sharding_strategy zero zero_stage",
    "model.context": (
        "max_length max_seq_length max_seq_len seq_len sequence_length block_size context_length n_ctx maxlen max_len "
        "cutoff_len seq_length n_positions"
    ),
    "model.layers": "n_layer n_layers num_layers num_hidden_layers depth",
    "model.width": "n_embd d_model hidden_size dim embed_dim hidden_dim",
    "model.heads": "n_head n_heads num_heads num_attention_heads",
    "model.vocabulary": "vocab_size vocab",
    "model.parameters": "num_parameters n_params params",
    "model": (
        "model_name model_name_or_path base_model pretrained pretrained_model arch architecture checkpoint weights "
        "model_id net network backbone pretrained_model_name_or_path model_path"
    ),
    "data": "dataset dataset_name data_path data_dir dataset_path input train_data_dir data_file dataset_id csv",
    "data.train": "train_file train_data train_path training_data train_dataset train_files",
    "data.validation": (
        "val valid dev val_file validation_file val_data validation_data eval_data eval_file eval_dataset dev_file "
        "val_path validation_split val_split valid_file"
    ),
    "data.test": "test_file test_data test_path test_dataset",
    "data.text_column": "text text_field dataset_text_field text_col sentence_column text_columns text_key",
    "data.second_text_column": "text_pair text_b second_text sentence2_column",
    "data.label_column": "label labels label_col label_key target_column label_columns y y_col class_column",
    "data.path_column": "path image_column audio_column file_column path_col x_col filename_column",
    "data.class_weights": "class_weight weighted balanced",
    "data.delimiter": "sep separator",
    "data.train_on": "train_on_inputs completion_only_loss assistant_only_loss train_on_prompt",
    "seed": "random_state random_seed manual_seed rng_seed data_seed",
    "metric": "metric_for_best_model monitor eval_metric objective compute_metrics metrics scoring greater_is_better",
    "budget": "max_time time_limit time timeout max_train_time max_runtime max_hours minutes hours duration",
    "phases": "stages stage phase schedule_phases",
}
_BY_UNIT: Mapping[str, str] = {
    "epochs": "epochs epoch num_epochs n_epochs nepochs nb_epoch max_epochs num_train_epochs",
    "steps": (
        "steps max_steps num_steps n_steps iterations iters max_iters max_iterations train_steps total_steps "
        "num_train_steps num_training_steps max_train_steps"
    ),
    "tokens": "max_tokens train_tokens total_tokens num_tokens",
}
# What there is nothing to set for, by what is to be said of it.
_NEEDLESS_BY_REASON: Mapping[str, str] = {
    (
        "gradient_accumulation_steps accumulate_grad_batches grad_accum accumulation_steps "
        "gradient_accumulation grad_accum_steps"
    ): ("an optimizer step takes recipe.batch_size examples, in as many pieces as the memory asks for. Leave it out"),
    "patience early_stopping early_stopping_patience early_stop es_patience": (
        "a run sees for itself when it is stable or overfits, and ships the best checkpoint; a phase ends "
        "there with until: stable. Leave it out"
    ),
    (
        "eval_steps eval_strategy evaluation_strategy eval_every save_steps save_strategy save_total_limit "
        "logging_steps logging_strategy val_check_interval check_val_every_n_epoch log_every_n_steps "
        "eval_interval log_interval load_best_model_at_end"
    ): "how often a run looks and saves follows from what a look costs. Leave it out",
    "num_workers workers dataloader_num_workers pin_memory n_jobs nproc": (
        "examples are read once and kept; there are no workers to set. Leave it out"
    ),
    "warmup_ratio warmup_fraction warmup_epochs warmup_proportion": (
        "the warm-up is a number of steps, recipe.warmup_steps, which follows from the length of the run "
        "where it is left out"
    ),
    (
        "output_dir out_dir output save_dir run_dir log_dir logdir logging_dir project run_name save_path "
        "default_root_dir model_dir"
    ): "the run directory is no part of a plan: --out DIR on the command line, out=DIR in Python",
    "device accelerator gpus gpu devices num_gpus n_gpu no_cuda use_cpu cuda use_cuda": (
        'the device is no part of a plan: --device cpu on the command line, device="cpu" in Python, or the '
        "environment variable MULTISTEP_DEVICE; else the accelerator of this machine is taken"
    ),
    "verbose quiet progress report_to wandb logger log_level disable_tqdm": (
        "what is shown is no part of a plan: see `multistep train --help`"
    ),
    "test_size val_size validation_fraction train_size split_ratio val_ratio": (
        "validation and test are cut from the data where it names none; name files of your own with "
        "data.validation and data.test"
    ),
    "resume resume_from_checkpoint resume_from ckpt_path": (
        "the same command again goes on with a run, and so does `multistep resume RUN`; to start from "
        "weights, name their folder as the model"
    ),
}
_OF_LENGTH = {name: unit for unit, names in _BY_UNIT.items() for name in names.split()}
_KEYS = {name: key for key, names in _BY_KEY.items() for name in names.split()}
_NEEDLESS = {name: reason for names, reason in _NEEDLESS_BY_REASON.items() for name in names.split()}
_KNOWN = {*_KEYS, *_OF_LENGTH, *_NEEDLESS, *RECIPE_KEYS}
_EXAMPLES: Mapping[str, str] = {
    "recipe.learning_rate": "1e-3",
    "recipe.batch_size": "32",
    "recipe.optimizer": "adamw",
    "recipe.resolution": "[32]",
    "recipe.adapter": "lora",
    "recipe.frozen": '["embedding*"]',
    "recipe.betas": "[0.9, 0.95]",
    "recipe.adapter_targets": "[q_proj, v_proj]",
    "recipe.precision": "bfloat16",
    "recipe.schedule": "one-cycle",
    "recipe.cooldown": "cosine",
    "data.class_weights": "balanced",
    "data.train_on": "all",
    "data.delimiter": "';'",
    "budget": "10m",
    "seed": "0",
    "phases": "[{name: first, until: 3 epochs}]",
}


_GROUPS: Mapping[str, Sequence[str]] = {
    "recipe": RECIPE_KEYS,
    "model": [field.name for field in fields(ModelSpec)],
    "data": [field.name for field in fields(DataSpec)],
}
OPTIONS = ("task", "data", "model", "metric", "budget", "seed", "ship", "keep")  # keys of a plan that are options, too


def hint(key: str, allowed: Sequence[str], value: object, *, group: str, typed: bool) -> str:
    """What to write instead of an unknown key of `group` ("" for the plan itself), with a space before it; or nothing.

    `typed` words it for the command line, else for a plan file or keywords.
    """
    close = nearest(key, allowed)
    name = plan_key(key)
    if name and name.rpartition(".")[0] == group and f"'{name.rpartition('.')[2]}'" in close:
        return close
    found = known_elsewhere(key, value, typed=typed, of_phase=group == "phases")
    return f" {found[0].upper()}{found[1:]}." if found else close


def plan_key(word: str) -> str | None:
    """The dotted key of a plan that a name stands for, as it is here, elsewhere, or in another group."""
    name = _bare(word)
    for group, keys in _GROUPS.items():
        if name in keys and name not in ("model", "name", "source"):
            return f"{group}.{name}"
    return "budget" if name in _OF_LENGTH else _KEYS.get(name)


def _bare(word: str) -> str:
    """`--Training-Args.per_device_train_batch_size` without what says nothing."""
    name = word.strip().lstrip("-").replace("-", "_").replace(".", "_").lower()
    for group in ("recipe_", "data_", "model_", "train_", "training_", "args_"):
        rest = name.removeprefix(group)
        if name not in _KNOWN and rest in _KNOWN:
            return rest
    return name


def known_elsewhere(word: str, value: object = None, *, typed: bool = False, of_phase: bool = False) -> str | None:
    """What to write instead of a key or option that other trainers have, as a sentence; None where none is known.

    `value` is what was given for it. `of_phase`: it stands in a phase, whose length is its `until`.
    """
    name = _bare(word)
    if name in _NEEDLESS:
        return _NEEDLESS[name]
    if name in _OF_LENGTH:
        unit = _OF_LENGTH[name]
        length = f"{value if _is_number(value) else 3 if unit == 'epochs' else 1000} {unit}"
        if of_phase:
            return f"the length of a phase is its until: {length}"
        return f"a length is a budget here: --budget '{length}'" if typed else f"a length is budget: {length} here"
    key = plan_key(word)
    if key is None:
        return None
    shown = str(value) if _fits(key, value) else _EXAMPLES.get(key, "...")
    if key == "recipe.resolution" and _is_number(value):
        shown = f"[{value}]"
    group, _, inner = key.rpartition(".")
    if typed:
        return f"it is {key} here: " + (f"--{key} {shown}" if key in OPTIONS else f"--set {key}={shown}")
    return f"it is {key} here: " + (f"{group}: {{{inner}: {shown}}}" if group else f"{key}: {shown}")


def _fits(key: str, value: object) -> bool:
    """Whether a value that was given for another name can be shown for this one."""
    if key == "recipe.learning_rate":
        return _is_number(value)
    whole = ("batch_size", "warmup_steps", "adapter_rank", "context", "layers", "width", "heads", "vocabulary", "seed")
    if key.rpartition(".")[2] in whole:
        return _is_number(value) and float(str(value)).is_integer()
    text = str(value)
    return key not in _EXAMPLES and isinstance(value, str | int | float) and bool(text) and len(text) < 80


def _is_number(value: object) -> bool:
    try:
        return value is not None and not isinstance(value, bool) and float(str(value)) > 0
    except ValueError:
        return False


def lay_short_keys(over: Mapping[str, Any], named: Callable[[str, Any], str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Keywords or options without the short ones, as values by dotted keys; and what each key was called.

    `epochs=3` is `budget="3 epochs"`. `named` says what a value is called in errors. Raises PlanError where one thing
    is said twice.
    """
    values: dict[str, Any] = {}
    called: dict[str, str] = {}
    for name, value in over.items():
        if value is None:
            continue
        key = SHORT_KEYS.get(name, name)
        if key in called:
            both = f"{named(called[key], over[called[key]])} and {named(name, value)}"
            raise PlanError(f"{both} both set {key}; give one of them")
        called[key] = name
        values[key] = f"{value} {name}" if name in ("epochs", "steps") else value
    return values, called
