"""cut_dist: Contrastive Unlikelihood Training of language models from judgments, on DeepSpeed ZeRO-3."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the kernels lie beside this package, and `cut_dist.kernels` is found through the package's own
# path: transformers would take a top-level package named `kernels` for Hugging Face's. Wheels map the folder.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "kernels" / "fused_linear_cut.py").is_file():
    __path__.append(str(_CHECKOUT))
