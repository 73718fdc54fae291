"""SlowFast's published weights under PySlowFast's names, read without running code from the files.

Three formats are distinguished: Caffe2's ``.pkl`` (PySlowFast's model zoo, the source of the published features),
PySlowFast's own ``.pyth``, and PyTorchVideo's ``.pyth``, which is a different training of the same network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mesm_core.backbones.slowfast import BLOCKS, SlowFast
from mesm_core.errors import FeatureError, listing
from mesm_core.unpickling import load_arrays

_BN = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
_IGNORED = re.compile(r"momentum|^lr$|model_iter|^head\.|^pred_|^blocks\.6\.|num_batches_tracked")
_STEM = re.compile(r"s1\.pathway(\d)_stem\.(conv|bn)\.(\w+)$")
_FUSE = re.compile(r"s(\d)_fuse\.(conv_f2s|bn)\.(\w+)$")
_SHORTCUT = re.compile(r"s(\d)\.pathway(\d)_res(\d+)\.branch1(_bn)?\.(\w+)$")
_BRANCH = re.compile(r"s(\d)\.pathway(\d)_res(\d+)\.branch2\.([abc])(_bn)?\.(\w+)$")


def caffe2_name(name: str) -> str:
    """Return the name in Caffe2's files of one of our parameters.

    >>> caffe2_name("s2.pathway1_res0.branch2.a_bn.running_var"), caffe2_name("s4_fuse.conv_f2s.weight")
    ('t_res2_0_branch2a_bn_riv', 't_res4_5_branch2c_bn_subsample_w')
    """
    if found := _STEM.match(name):
        pathway, part, kind = found.groups()
        return f"{_fast(pathway)}conv1_w" if part == "conv" else f"{_fast(pathway)}res_conv1_bn_{_BN[kind]}"
    if found := _FUSE.match(name):
        stage, part, kind = found.groups()
        place = "pool1" if stage == "1" else f"res{stage}_{BLOCKS[int(stage) - 2] - 1}_branch2c_bn"
        return f"t_{place}_subsample" + ("_w" if part == "conv_f2s" else f"_bn_{_BN[kind]}")
    if found := _SHORTCUT.match(name):
        stage, pathway, block, bn, kind = found.groups()
        return f"{_fast(pathway)}res{stage}_{block}_branch1" + (f"_bn_{_BN[kind]}" if bn else "_w")
    if found := _BRANCH.match(name):
        stage, pathway, block, letter, bn, kind = found.groups()
        return f"{_fast(pathway)}res{stage}_{block}_branch2{letter}" + (f"_bn_{_BN[kind]}" if bn else "_w")
    raise ValueError(f"{name} is not a parameter of SlowFast")


def pytorchvideo_name(name: str) -> str:
    """Return the name in PyTorchVideo's files of one of our parameters.

    >>> pytorchvideo_name("s2.pathway1_res0.branch2.a_bn.weight")
    'blocks.1.multipathway_blocks.1.res_blocks.0.branch2.norm_a.weight'
    """
    if found := _STEM.match(name):
        pathway, part, kind = found.groups()
        return f"blocks.0.multipathway_blocks.{pathway}.{'conv' if part == 'conv' else 'norm'}.{kind}"
    if found := _FUSE.match(name):
        stage, part, kind = found.groups()
        module = "conv_fast_to_slow" if part == "conv_f2s" else "norm"
        return f"blocks.{int(stage) - 1}.multipathway_fusion.{module}.{kind}"
    if found := _SHORTCUT.match(name):
        stage, pathway, block, bn, kind = found.groups()
        block_name = f"blocks.{int(stage) - 1}.multipathway_blocks.{pathway}.res_blocks.{block}"
        return f"{block_name}.branch1_{'norm' if bn else 'conv'}.{kind}"
    if found := _BRANCH.match(name):
        stage, pathway, block, letter, bn, kind = found.groups()
        block_name = f"blocks.{int(stage) - 1}.multipathway_blocks.{pathway}.res_blocks.{block}"
        return f"{block_name}.branch2.{'norm' if bn else 'conv'}_{letter}.{kind}"
    raise ValueError(f"{name} is not a parameter of SlowFast")


def read_slowfast(path: Path, *, width: int = 64, pytorchvideo: bool = False) -> dict[str, Tensor]:
    """Return the network's weights by PySlowFast's names; the classifier is left out.

    Args:
        width: channels of the slow stem; pytorchvideo: require PyTorchVideo's training; otherwise it is refused.

    Raises:
        FeatureError: the file is missing, damaged, would run code, has the other training, or arrays are missing or
            have other shapes.
    """
    if not path.is_file():
        raise FeatureError(
            f"No SlowFast weights at {path}.", hint="`mesm weights where slowfast-r50` shows which file to put where."
        )
    content = _content(path)
    is_pytorchvideo = any(name.startswith("blocks.") for name in content)
    if is_pytorchvideo != pytorchvideo:
        training = "PyTorchVideo's training" if is_pytorchvideo else "not PyTorchVideo's training"
        raise FeatureError(
            f"{path} has {training} of SlowFast; features of the two differ.",
            hint=f"Select it by name: --backbone slowfast-r50{'-pytorchvideo' if is_pytorchvideo else ''}.",
        )
    expected = {n: tuple(v.shape) for n, v in _empty(width).state_dict().items() if not _IGNORED.search(n)}
    rename: Callable[[str], str] = pytorchvideo_name if is_pytorchvideo else str
    if "conv1_w" in content:
        rename = caffe2_name
    return _matched(content, expected, rename, path)


def _content(path: Path) -> Mapping[str, Tensor]:
    """Return a file's arrays by their name in the file."""
    if path.suffix == ".pkl":
        content = load_arrays(path, error=FeatureError)
        blobs = content.get("blobs") if isinstance(content, dict) else None
        if not isinstance(blobs, dict):
            raise FeatureError(f"{path} has no 'blobs', so it is not a Caffe2 model.")
        arrays = {str(name): value for name, value in blobs.items() if isinstance(value, np.ndarray)}
        numeric = {name: value for name, value in arrays.items() if value.dtype.kind in "fiu"}
        return {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in numeric.items()}
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises anything for untrusted files
        raise FeatureError(
            f"{path} is damaged, truncated, or would run code, so it was not loaded.",
            hint="Download the weights again.",
        ) from error
    state = loaded.get("model_state", loaded) if isinstance(loaded, dict) else {}
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _matched(
    content: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], rename: Callable[[str], str], path: Path
) -> dict[str, Tensor]:
    missing = [name for name in expected if rename(name) not in content]
    if missing:
        raise FeatureError(
            f"{path} lacks {len(missing)} of SlowFast's {len(expected)} arrays: "
            f"{listing(map(rename, missing), limit=3)}.",
            hint="Is it SLOWFAST_8x8_R50, and complete?",
        )
    weights = {name: content[rename(name)].float() for name in expected}
    for name, value in weights.items():
        if tuple(value.shape) != expected[name]:
            raise FeatureError(
                f"{path}: {rename(name)} has shape {tuple(value.shape)}, expected {expected[name]}.",
                hint="Is it SLOWFAST_8x8_R50?",
            )
        if not torch.isfinite(value).all():
            raise FeatureError(f"{path}: {rename(name)} has NaN or infinity.", hint="Download the weights again.")
    return weights


def _empty(width: int) -> SlowFast:
    with torch.device("meta"):
        return SlowFast(width=width)


def _fast(pathway: str) -> str:
    return "t_" if pathway == "1" else ""
