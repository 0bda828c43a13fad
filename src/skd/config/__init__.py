"""The config file: typed, checked as a whole before anything is spent, and saved with the run."""

from skd.config.dump import config_digest, dump_config
from skd.config.idle import idle_problems, idle_saves
from skd.config.load import Reading, Sections, config_of, load_config, read_config
from skd.config.methods import ALIASES, METHODS, Method, methods_table
from skd.config.models import (
    AdapterOffTeacher,
    AverageTeacher,
    HubConfig,
    LoraConfig,
    ModelConfig,
    RoutedTeacher,
    ServerTeacher,
    StudentModel,
    StudentTeacher,
    TeacherConfig,
    TeacherModel,
    teachers_of,
)
from skd.config.numbers import ScheduleConfig
from skd.config.objective import LossConfig, ObjectiveConfig, TargetConfig, WeightsConfig
from skd.config.paths import resolve_model_path
from skd.config.policy import GateConfig, PolicyConfig
from skd.config.schema import MeasuredCosts, RolloutsConfig, RunConfig, SamplingConfig, TrainConfig, WarpConfig
from skd.config.sources import DataConfig, DataSource, FileSource, HubSource, ResponsesSource, TaskSource

__all__ = [
    "ALIASES",
    "METHODS",
    "AdapterOffTeacher",
    "AverageTeacher",
    "DataConfig",
    "DataSource",
    "FileSource",
    "GateConfig",
    "HubConfig",
    "HubSource",
    "LoraConfig",
    "LossConfig",
    "MeasuredCosts",
    "Method",
    "ModelConfig",
    "ObjectiveConfig",
    "PolicyConfig",
    "Reading",
    "ResponsesSource",
    "RolloutsConfig",
    "RoutedTeacher",
    "RunConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "Sections",
    "ServerTeacher",
    "StudentModel",
    "StudentTeacher",
    "TargetConfig",
    "TaskSource",
    "TeacherConfig",
    "TeacherModel",
    "TrainConfig",
    "WarpConfig",
    "WeightsConfig",
    "config_digest",
    "config_of",
    "dump_config",
    "idle_problems",
    "idle_saves",
    "load_config",
    "methods_table",
    "read_config",
    "resolve_model_path",
    "teachers_of",
]
