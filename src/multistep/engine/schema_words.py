"""What each key of a plan file means, in the words that an editor shows; docs/reference/plan.md has more of each."""

from __future__ import annotations

from collections.abc import Mapping

_PLAN = {
    "task": "What to train for. Needed.",
    "data": "What to train on: a file, a folder, the id of a data set on the hub, or a group that names each split. "
    "Needed.",
    "model": "auto (the default): a pretrained model that can be had and tuned in time, else a new one; scratch: a new "
    "one; a preset, a model folder or a hub id; a list of these, which are raced; or a group of sizes.",
    "metric": "What models are judged by; the default depends on the task.",
    "budget": "How long to train: 10m, 1h30m, '2000 steps', '3 epochs', '2M tokens'. Without one: until stable.",
    "seed": "The random seed of initial weights and data order.",
    "tolerance": "The improvement, in the metric's unit, that is too small to wait for; by default 0.002 of accuracy "
    "and other shares, 0.3% of a loss.",
    "recipe": "Settings of the training, for all phases; what is left open is chosen for you.",
    "moves": "What may be tried once the plain run needs no more: auto for all, a list of names, [] for none.",
    "ship": "auto: the network, or the simple baseline where that leads on validation; network: the network anyway.",
    "keep": "What stays once the run has ended: model (the default), or all checkpoints too.",
    "phases": "Stretches of training one after the other, each from the weights that the one before ended with.",
}
_PHASE = {
    "name": "What the phase is called; by default its number.",
    "task": "The task of this phase, if it is not the plan's.",
    "data": "The data of this phase, if they are not the plan's.",
    "metric": "The metric of this phase, if it is not the plan's.",
    "recipe": "Settings of this phase, laid over the plan's.",
    "until": "When to leave the phase: a length such as '3 epochs', or stable. Without it, it has its share of the "
    "budget.",
    "moves": "The moves that this phase may try, if they are not the plan's.",
    "guard": "What the phase must not forget: data whose score may not become much worse.",
}
_GUARD = {
    "data": "The data whose validation part is scored before the phase and after each attempt.",
    "metric": "The metric of these data; by default that of their task.",
    "at_most_worse": "By how much the score may become worse, in the metric's unit.",
}
_DATA = {
    "source": "A file, folder or data set that is split into train, validation and test.",
    "train": "The training split.",
    "validation": "The validation split: a file or folder, or a share of train such as 0.2.",
    "test": "The test split: a file or folder, or a share of train; 0 for none.",
    "text_column": "The column of a table that holds the text; of speech, the transcript.",
    "second_text_column": "The column that holds the second text of a pair.",
    "label_column": "The column that holds the label.",
    "path_column": "The column that names image or audio files.",
    "labels": "What labels are, where their look misleads: one class, several classes at once, or a number.",
    "train_on": "Of conversations: train on the assistant's turns alone, or on all.",
    "delimiter": "What stands between the columns of a table: one character, or its name: tab, comma, semicolon.",
    "header": "Whether the first row of a table names its columns.",
    "encoding": "How the bytes of text files are read: utf-8, cp1252, latin-1, gb18030, ...",
    "root": "The folder that the paths in a table are relative to; by default the table's own.",
    "class_weights": "balanced weighs each example of a classification by how rare its class is.",
    "validation_share": "The same as validation with a number: the share of train that is cut for validation.",
    "test_share": "The same as test with a number: the share of train that is cut for test.",
}
_MODEL = {
    "name": "auto, scratch, a preset, a model folder or a hub id.",
    "parameters": "How many parameters a new model has, about.",
    "layers": "How many blocks a new model has.",
    "width": "The width of a new model's blocks.",
    "heads": "How many heads of attention a block has.",
    "context": "The longest text that a new model reads, in tokens.",
    "tokenizer": "How text is cut into tokens for a new model.",
    "vocabulary": "How many tokens the vocabulary of a new model has.",
    "candidates": "Several models, which are raced on your data.",
}
_RECIPE = {
    "optimizer": "The optimizer. schedule-free, soap, lion and prodigy need the extra `optimizers`.",
    "learning_rate": "The learning rate at the plateau; left open, it is chosen, and probed where the budget allows.",
    "batch_size": "Examples per optimizer step.",
    "momentum": "Momentum of muon and sgd.",
    "nesterov": "Whether momentum looks ahead (Nesterov).",
    "betas": "The two decays of Adam's running means.",
    "weight_decay": "Weight decay, of matrices only (sgd: in the gradient).",
    "dropout": "The share of activations that are dropped in training.",
    "label_smoothing": "The share of a label's probability that is spread over all classes.",
    "gradient_clip": "The largest global norm of the gradient; 0 for no limit.",
    "warmup_steps": "Steps over which the learning rate rises to its plateau.",
    "cooldown": "How the learning rate falls to zero at the end.",
    "cooldown_fraction": "The share of the training that cools down; 0 never, 1 from the end of the warm-up on.",
    "schedule": "What the learning rate does before the cooldown.",
    "averaging": "The horizon of the averaged weights as a share of the steps so far; 0 for none.",
    "sharpness": "The radius of sharpness-aware steps; 0 for plain ones.",
    "augmentation": "The strength of the task's augmentation, 0 to 1.",
    "layer_decay": "Each layer's learning rate as a share of that of the layer above.",
    "context": "The training context in tokens; by default the model's.",
    "resolution": "Training sizes of images in pixels; of several, each but the last for an equal share of the trunk.",
    "frozen": "Glob patterns of the names of parameters that are not trained.",
    "precision": "The precision of products; weights, gradients and sums are float32 whatever this is.",
    "model": "Which of the task's networks is trained, where it has several.",
    "head": "What a last layer that pretrained weights lack begins as: drawn, or probed on the frozen features.",
    "adapter": "Train small matrices beside the pretrained weights instead of these.",
    "adapter_rank": "The rank of an adapter's matrices.",
    "adapter_alpha": "The scale of an adapter's product; by default twice the rank.",
    "adapter_targets": "Ends of the names of the layers that get an adapter; by default all linear ones but the head.",
    "beta": "Of preferences: how strongly one is held to what the phase began with.",
    "micro_batch": "How many examples a pass holds; auto: as many as fit. The step stays that of the whole batch.",
    "checkpointing": "Whether activations are computed again for the gradient, which saves memory and takes time.",
    "sharding": "Whether each of several processes holds the whole model, or its part; auto: as memory has it.",
    "outer": "Over a thin network: each process takes steps alone, and all meet every so many for an outer step.",
    "compile": "Whether torch.compile compiles the repeated blocks; auto: where it is measured to pay.",
}
_OUTER = {
    "every": "How many steps each process takes alone before they meet: '100 steps', or 100.",
    "optimizer": "What makes an outer step of the mean of their changes: nesterov, or sgd with plain momentum.",
    "learning_rate": "The rate of an outer step; with 1, and momentum 0, all go on from the mean of their weights.",
    "momentum": "The momentum of outer steps.",
    "fragments": "In how many parts the model's changes are sent, each at a time of its own.",
    "overlap": "How many steps are computed while changes are on their way: '10 steps', or 10. 0: all wait for them.",
    "mixing": "Of the steps that are computed meanwhile, the share that is kept when the outer step is made.",
    "bits": "In how many bits each changed number is sent: 32, or 4, a sign and a power of two.",
}
_GROUPS = {
    "Outer": _OUTER,
    "Plan": _PLAN,
    "Phase": _PHASE,
    "Guard": _GUARD,
    "DataSpec": _DATA,
    "ModelSpec": _MODEL,
    "Recipe": _RECIPE,
}
WORDS: Mapping[str, str] = {f"{group}.{key}": said for group, words in _GROUPS.items() for key, said in words.items()}
