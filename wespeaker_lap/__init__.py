"""Speaker verification on top of frozen, pre-trained speech encoders.

`load_model` is found here and imported on first use, so that `import wespeaker_lap` stays light:
listing files or checking a configuration loads no torch.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> object:
    """Import `load_model` when it is first asked for (PEP 562)."""
    if name == "load_model":
        from wespeaker_lap.share.speaker import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, the lazy one included."""
    return sorted(__all__)
