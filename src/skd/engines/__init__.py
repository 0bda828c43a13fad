"""Teachers outside this process."""

from skd.config import ServerTeacher
from skd.engines.transport import Limits
from skd.engines.vllm import VllmServer

__all__ = ["VllmServer", "server_of"]


def server_of(teacher: ServerTeacher) -> VllmServer:
    """The server that a config names."""
    return VllmServer(
        teacher.url,
        teacher.model,
        teacher.top_logprobs,
        concurrency=teacher.concurrency,
        limits=Limits(silence=teacher.silence_seconds, total=teacher.total_seconds, tries=teacher.tries),
    )
