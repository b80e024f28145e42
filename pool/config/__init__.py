"""YAML -> typed, frozen settings, or one ConfigError that lists every problem.

loader.py parses the text and collects the problems; fields.py reads each value by the type of its key; settings.py
declares the keys. `config/pool.yaml` documents every key, and a test compares it with these types and defaults.
"""

from pool.config.loader import load, loads
from pool.config.settings import (
    AlertSettings,
    Backlog,
    DaemonSettings,
    MaxLimits,
    MetricsSettings,
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
    "AlertSettings",
    "Backlog",
    "DaemonSettings",
    "MaxLimits",
    "MetricsSettings",
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
