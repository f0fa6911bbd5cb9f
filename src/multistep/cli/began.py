"""When this process began: imported before anything slow, since the budget pays for imports too."""

import time

BEGAN = time.monotonic()
