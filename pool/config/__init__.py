"""YAML -> typed, frozen settings, or one ConfigError that names everything that is wrong.

    text ──▶ document ───────────────▶ settings ──▶ Settings
             parse, refuse what YAML   pydantic, strict:
             must not do here, fill    types, ranges, names
             in ${VAR:default}
                  └── problems ────────────┴──▶ ConfigError(problems=("file:line: key: wrong; allowed", ...))

`config/pool.yaml` documents every key; a test holds it to these types and defaults.
"""

from pool.config.load import load, loads
from pool.config.settings import (
    Backlog,
    DaemonSettings,
    MaxLimits,
    Poison,
    Preload,
    Recycle,
    SandboxSettings,
    Settings,
    Size,
    Template,
    TemplateLimits,
)

__all__ = [
    "Backlog",
    "DaemonSettings",
    "MaxLimits",
    "Poison",
    "Preload",
    "Recycle",
    "SandboxSettings",
    "Settings",
    "Size",
    "Template",
    "TemplateLimits",
    "load",
    "loads",
]
