"""Configs: dataclasses of documented fields (`Settings`, `setting`), filled from YAML and `key=value` (`load_config`).

`settings.model` holds the keys of the models. The errors that a user can fix (`UserError`, `ConfigError`,
`MissingFile`, `UnreadableFile`) and `check`, which raises one for a value, are offered here too.
"""

from models.errors import ConfigError, MissingFile, UnreadableFile, UserError, check
from settings.extras import MissingPackage, needs_extra
from settings.fields import Settings, setting
from settings.reader import describe, find_config, load_config, save_config

__all__ = [
    "ConfigError",
    "MissingFile",
    "MissingPackage",
    "Settings",
    "UnreadableFile",
    "UserError",
    "check",
    "describe",
    "find_config",
    "load_config",
    "needs_extra",
    "save_config",
    "setting",
]
