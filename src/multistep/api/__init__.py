"""train, resume, evaluate, predict, report and the other verbs: where the floors are joined."""

from multistep.api.planning import check, dry_run, simulate
from multistep.api.runs import clean, export, export_to, push, track
from multistep.api.training import resume, train
from multistep.api.using import chat, evaluate, generate, predict, predict_file, serve
from multistep.core.evidence.function_metric import FunctionMetric
from multistep.interface.lanes import Lanes
from multistep.interface.result import Result
from multistep.interface.running import read_result, run, write_report

__all__ = [
    "FunctionMetric",
    "Lanes",
    "Result",
    "chat",
    "check",
    "clean",
    "dry_run",
    "evaluate",
    "export",
    "export_to",
    "generate",
    "predict",
    "predict_file",
    "push",
    "read_result",
    "resume",
    "run",
    "serve",
    "simulate",
    "track",
    "train",
    "write_report",
]
