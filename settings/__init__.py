"""Typed configurations: dataclasses of documented fields, filled from YAML and `key=value`, each mistake named."""

from models.errors import ConfigError, MissingFile, UserError, check
from settings.extras import MissingPackage, needs_extra
from settings.fields import Settings, setting
from settings.reader import describe, find_config, load_config, save_config

__all__ = [
    "ConfigError",
    "MissingFile",
    "MissingPackage",
    "Settings",
    "UserError",
    "check",
    "describe",
    "find_config",
    "load_config",
    "needs_extra",
    "save_config",
    "setting",
]
