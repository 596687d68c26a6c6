"""torch's compiler stays unloaded until someone compiles."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(90)

TRAIN = """
import sys
from distrib.compat.pytorch import dynamo
dynamo.install()
import torch
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
for _ in range(2):
    model(torch.ones(2, 3)).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
assert not dynamo.is_loaded()
assert "sympy" not in sys.modules
"""

COMPILE = """
import torch._dynamo
compiled = torch.compile(model, backend="eager")
inputs = torch.ones(2, 3)
assert torch.equal(compiled(inputs), model(inputs))
assert dynamo.is_loaded()
assert torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
compiled(inputs).sum().backward()
optimizer.step()
optimizer.zero_grad()
disabled = torch._dynamo.disable(lambda x: x + 1)
assert disabled(1) == 2
"""

INSTALL = "from distrib.compat.pytorch import dynamo; dynamo.install()\n"
CHECK = "import torch; assert config is torch._dynamo.config and config.recompile_limit > 0; dynamo.install()\n"


@pytest.mark.relies_on("torch._dynamo")
@pytest.mark.parametrize(
    "program",
    [
        TRAIN + COMPILE,
        INSTALL + "import torch._dynamo.config\nconfig = torch._dynamo.config\n" + CHECK,
        INSTALL + "from torch._dynamo import config\n" + CHECK,
    ],
    ids=["train, then compile", "import config", "from import config"],
)
def test_in_a_process_of_its_own(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
