"""The most used model families: their tokenizers, rebuilt small, and their chat templates.

A family is a module with its `FAMILY`; the chat template is `templates/<name>.jinja`.
"""

from importlib import import_module
from pkgutil import iter_modules

from tests.unit.trainer.families.building import Family

_MODULES = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))

FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES if hasattr(module, "FAMILY")}
