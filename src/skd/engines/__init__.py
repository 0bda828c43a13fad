"""Models outside this process: a teacher on a server, and engines that write responses."""

from skd.config import RunConfig, ServerTeacher
from skd.engines.rollouts import Settings, VllmPolicy, VllmWriter, Writers
from skd.engines.transfer import TRANSFERS
from skd.engines.transport import Limits
from skd.engines.vllm import VllmServer

__all__ = ["Settings", "VllmPolicy", "VllmServer", "VllmWriter", "Writers", "server_of", "writers_of"]


def server_of(teacher: ServerTeacher) -> VllmServer:
    """The server that a config names."""
    return VllmServer(
        teacher.url,
        teacher.model,
        teacher.top_logprobs,
        concurrency=teacher.concurrency,
        limits=Limits(silence=teacher.silence_seconds, total=teacher.total_seconds, tries=teacher.tries),
    )


def writers_of(config: RunConfig) -> Writers | None:
    """The engines that a config asks for; None for the sampler in this process."""
    rollouts = config.sampling.rollouts
    if rollouts is None:
        return None
    return Writers.of(
        Settings(
            python=rollouts.python,
            slots=config.sampling.slots,
            max_staleness=rollouts.max_staleness,
            start_seconds=rollouts.start_seconds,
            total_seconds=rollouts.total_seconds,
            gpu_memory=rollouts.gpu_memory,
            transfer=TRANSFERS[rollouts.transfer],
        )
    )
