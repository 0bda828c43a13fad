"""Everything that can be known of a run before it costs anything: ``skd check``, and the start of ``skd train``.

Importing this package imports no torch.
"""

from skd.check.report import Part
from skd.check.run import Checked, check, check_reading

__all__ = ["Checked", "Part", "check", "check_reading"]
