from dataclasses import dataclass

from . import vision

__all__ = ["BaseOptions", "vision"]


@dataclass
class BaseOptions:
    model_asset_path: str
