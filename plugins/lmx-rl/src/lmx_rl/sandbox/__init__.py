"""Where programs that nobody has read are run."""

from lmx_rl.sandbox.compare import equal as equal
from lmx_rl.sandbox.opening import open_sandbox as open_sandbox
from lmx_rl.sandbox.protocol import Call as Call
from lmx_rl.sandbox.protocol import Isolation as Isolation
from lmx_rl.sandbox.protocol import Outcome as Outcome
from lmx_rl.sandbox.protocol import Program as Program
from lmx_rl.sandbox.protocol import Returned as Returned
from lmx_rl.sandbox.protocol import Sandbox as Sandbox
