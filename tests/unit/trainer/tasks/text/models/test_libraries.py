import os
import subprocess
import sys

import torch

from trainyard_trainer.tasks.text.models.libraries import import_bitsandbytes

LOADED = """
import sys
from trainyard_trainer.tasks.text.models.libraries import import_libraries
import_libraries(adapter=True)
print(sorted({"peft", "bitsandbytes", "torch._inductor.compile_fx"} & set(sys.modules)))
"""


def test_adapter_is_loaded_without_compiler() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['bitsandbytes', 'peft']"


def test_torch_compile_is_restored() -> None:
    before = torch.compile
    assert import_bitsandbytes().__name__ == "bitsandbytes"
    assert torch.compile is before
