"""What a run will cost in time and memory on a described machine, before it is bought: ``skd plan``."""

from skd.plan.cost import Cost, Part, step_cost
from skd.plan.machine import MACHINES, MachineConfig, load_machine
from skd.plan.shape import Shape
from skd.plan.work import Work

__all__ = ["MACHINES", "Cost", "MachineConfig", "Part", "Shape", "Work", "load_machine", "step_cost"]
