"""Reading of CLIP's weights, of both towers, from common file formats, without running code from them."""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mesm_core.errors import TextError
from mesm_core.files import write_atomically
from mesm_core.inputs import open_zip, reason, shown
from mesm_core.text.clip import HEAD_WIDTH, ClipTextTransformer

FORMAT = "mesm-clip-text"
TEXT_NAMES = re.compile(
    r"(?:.*\.)?((?:transformer\.resblocks\.\d+\..+)|token_embedding\.weight|positional_embedding|ln_final\.(?:weight|bias))$"
)
PROJECTION = "text_projection"
"""OpenAI's name of the matrix (width, out) that projects a sentence to the joint space with images."""
_PROJECTION = re.compile(r"(?:.*\.)?text_projection(\.weight)?$")
_VISUAL = re.compile(r"(?:.*\.)?(visual\..+)$")
_HF_LAYER = re.compile(r"(?:.*\.)?(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)$")
_HF_VISION = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.": "ln_pre",
    "vision_model.post_layernorm.": "ln_post",
}
_HF_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def read_clip_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the weights of the text tower, with OpenAI's names, and the metadata of the file.

    The weights include ``text_projection`` (width, out) if the file has it; the text encoder does not use it.
    Reads OpenAI's TorchScript archives (ViT-B-32.pt), open_clip's and Hugging Face's checkpoints (.safetensors,
    .bin, .pt), the paper's clip_text_encoder.pth, and files written by ``mesm prepare clip-text``.

    Raises:
        TextError: the file is missing, unreadable, needs code to be run, or has no text tower.
    """
    if not path.is_file():
        raise TextError(
            f"No CLIP weights at {path}.",
            hint="Give --clip FILE: OpenAI's ViT-B-32.pt, an open_clip or Hugging Face checkpoint, or what "
            "`mesm prepare clip-text` wrote.",
        )
    weights, about = _read(path)
    text = text_tower(weights)
    if not {"token_embedding.weight", "positional_embedding"} <= set(text):
        raise TextError(
            f"{path} has no CLIP text tower ({len(weights)} tensors, none of a text transformer's).",
            hint="Give the whole CLIP model, not its image encoder.",
        )
    return text, about


def load_clip_text(path: Path, *, width: int | None = None) -> ClipTextTransformer:
    """Return the frozen text transformer of a weights file.

    Args:
        width: width that it must have.

    Raises:
        TextError: the file cannot be used, or is of another width.
    """
    weights, about = read_clip_weights(path)
    model = _text_transformer(weights, about, path)
    if width not in (None, model.width):
        raise TextError(
            f"The CLIP text encoder in {path} is {model.width} wide, but model.text_dim is {width}.",
            hint=f"Use --set model.text_dim={model.width}, or give other weights.",
        )
    return model


def load_clip_joint(path: Path) -> tuple[ClipTextTransformer, Tensor]:
    """Return the frozen text transformer of a weights file, and its projection (width, out) float32 into joint space.

    Raises:
        TextError: the file cannot be used, or has no text projection.
    """
    weights, about = read_clip_weights(path)
    model = _text_transformer(weights, about, path)
    projection = weights.get(PROJECTION)
    if projection is None:
        raise TextError(
            f"{path} has no text projection, so its sentences cannot be compared with images.",
            hint=f"Run `mesm prepare clip-text ViT-B-32.pt {path} --overwrite` again, from the whole CLIP model.",
        )
    if projection.ndim != 2 or len(projection) != model.width or not projection.shape[1]:
        raise TextError(
            f"The text projection in {path} has the shape {tuple(projection.shape)}; "
            f"the text encoder is {model.width} wide.",
            hint="Is the file complete, and CLIP's?",
        )
    if not projection.is_floating_point() or not bool(torch.isfinite(projection.float()).all()):
        raise TextError(f"The text projection in {path} holds other than finite numbers.", hint="Is the file damaged?")
    return model, projection.float().contiguous()


def _text_transformer(weights: Mapping[str, Tensor], about: Mapping[str, str], path: Path) -> ClipTextTransformer:
    heads = about.get("heads")
    if heads is not None and not (heads.isascii() and heads.isdigit() and 0 < int(heads[:9]) == int(heads[:10])):
        raise TextError(f"The metadata of {path} has an invalid number of heads: {shown(heads)}.")
    activation = about.get("activation", "quick_gelu")
    try:
        return ClipTextTransformer.from_weights(weights, heads=int(heads) if heads else None, activation=activation)
    except TextError as error:
        raise TextError(f"{path}: {error.message}", hint=error.hint) from error


def write_clip_text(
    path: Path, weights: Mapping[str, Tensor], *, heads: int | None, activation: str, overwrite: bool = False
) -> None:
    """Write a text-only safetensors file.

    Raises:
        OutputError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    width = weights["positional_embedding"].shape[1]
    about = {"format": FORMAT, "heads": str(heads or max(width // HEAD_WIDTH, 1)), "activation": activation}
    content = save({name: value.contiguous().clone() for name, value in weights.items()}, metadata=about)
    write_atomically(path, content, overwrite=overwrite)


def text_tower(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the text tower of a CLIP model's weights under OpenAI's names; image weights are left out."""
    if any("text_model.embeddings" in name for name in weights):
        return _from_hugging_face(weights) | _projection(weights)
    named = {}
    for name, value in weights.items():
        match = TEXT_NAMES.match(name)
        if match and not name.startswith(("visual.", "vision_model.")) and ".visual." not in name:
            named[match[1]] = value
    return named | _projection(weights)


def _projection(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the text projection (width, out) by name, if there is one. A linear layer's weight is (out, width)."""
    for name, value in weights.items():
        match = _PROJECTION.match(name)
        if match:
            return {PROJECTION: value.T if match[1] and value.ndim == 2 else value}
    return {}


def read_clip_image(path: Path) -> dict[str, Tensor]:
    """Read the weights of the image tower, with OpenAI's names (``visual.…``), from the same kinds of files.

    Raises:
        TextError: the file is missing, unreadable, needs code to be run, or has no image tower.
    """
    if not path.is_file():
        raise TextError(
            f"No CLIP weights at {path}.", hint="`mesm weights where clip-b32` says which file to put where."
        )
    weights, _ = _read(path)
    if any("vision_model.embeddings" in name for name in weights):
        image = _image_from_hugging_face(weights)
    else:
        found = ((_VISUAL.match(name), value) for name, value in weights.items())
        image = {match[1]: value for match, value in found if match}
    if "visual.conv1.weight" not in image:
        raise TextError(
            f"{path} has no CLIP image tower ({len(weights)} tensors, none of a vision transformer's).",
            hint="Give the whole CLIP model, not its text encoder.",
        )
    return image


def _from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = _hugging_face_layers(weights, "text")
    for name, value in weights.items():
        if name.endswith("text_model.embeddings.token_embedding.weight"):
            named["token_embedding.weight"] = value
        elif name.endswith("text_model.embeddings.position_embedding.weight"):
            named["positional_embedding"] = value
        elif "text_model.final_layer_norm." in name:
            named[f"ln_final.{name.rsplit('.', 1)[1]}"] = value
    return named


def _image_from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {f"visual.{name}": value for name, value in _hugging_face_layers(weights, "vision").items()}
    for name, value in weights.items():
        for theirs, ours in _HF_VISION.items():
            if theirs in name:
                named[f"visual.{ours}" + (f".{name.rsplit('.', 1)[1]}" if ours.startswith("ln_") else "")] = value
        if name.endswith("visual_projection.weight") and value.ndim == 2:
            named["visual.proj"] = value.T
    return named


def _hugging_face_layers(weights: Mapping[str, Tensor], tower: str) -> dict[str, Tensor]:
    """Return a tower's transformer blocks under OpenAI's names; queries, keys and values are packed."""
    named: dict[str, Tensor] = {}
    projections: dict[tuple[str, str, str], Tensor] = {}
    for name, value in weights.items():
        layer = _HF_LAYER.match(name)
        if not layer or layer[1] != tower:
            continue
        _, number, rest = layer.groups()
        module, _, kind = rest.rpartition(".")
        if module in {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}:
            projections[number, module[-6], kind] = value
        elif module in _HF_PARTS:
            named[f"transformer.resblocks.{number}.{_HF_PARTS[module]}.{kind}"] = value
    for number in {number for number, _, _ in projections}:
        for kind in ("weight", "bias"):
            parts = [projections[number, part, kind] for part in "qkv" if (number, part, kind) in projections]
            if len(parts) != len("qkv") or any(part.ndim != parts[0].ndim or not part.ndim for part in parts):
                raise TextError(f"Layer {number} of the CLIP {tower} encoder lacks q, k or v ({kind}).")
            named[f"transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat(parts)
    return named


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        content, about = _content(path)
    except TextError:
        raise
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise TextError(
            f"{path} cannot be read without running code from it, or is damaged: {reason(error)}."
        ) from error
    except Exception as error:  # torch's reader may raise any exception for a damaged file
        raise TextError(f"{path} cannot be read: {reason(error)}.", hint="Is the download complete?") from error
    while isinstance(content, dict) and isinstance(content.get("state_dict") or content.get("model"), dict):
        content = content.get("state_dict") or content["model"]
    if not isinstance(content, dict):
        raise TextError(f"{path} holds {type(content).__name__}, not weights by name.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return {name: value for name, value in tensors.items() if _is_whole(value)}, about


def _content(path: Path) -> tuple[Any, dict[str, str]]:
    """Return the content of a file and its metadata."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    if zipfile.is_zipfile(path):
        with open_zip(path, error=TextError, stored=True) as archive:
            if _is_torchscript(archive):
                return _read_torchscript(archive), {}
    return torch.load(path, map_location="cpu", weights_only=True), {}


def _is_whole(value: Tensor) -> bool:
    """Return whether a tensor is dense and all its values are stored; with strides of 0 they would not be."""
    dense = value.layout == torch.strided and value.device.type == "cpu"
    return dense and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _is_torchscript(archive: zipfile.ZipFile) -> bool:
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """Return the parameters of a TorchScript archive by name, without reading its code."""
    member = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if member is None:
        raise TextError("The archive has no data.pkl.", hint="Is the download complete?")
    root = _ScriptUnpickler(archive, member.removesuffix("data.pkl")).read()
    tensors: dict[str, Tensor] = {}
    _collect(root, "", tensors)
    return tensors


class _Module:
    """Stand-in for any scripted module, with its attributes as a dict."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _ScriptUnpickler(pickle.Unpickler):
    """Reads a TorchScript data.pkl: scripted classes become ``_Module``, tensors are rebuilt, the rest is refused."""

    _DTYPES = {  # noqa: RUF012
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "DoubleStorage": torch.float64,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "BoolStorage": torch.bool,
    }

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(archive.read(prefix + "data.pkl")))
        self._archive = archive
        self._prefix = prefix

    def find_class(self, module: str, name: str) -> Any:
        """Return a harmless stand-in for names in TorchScript archives; refuse other names."""
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in self._DTYPES:
            return self._DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":
            return lambda value=None, *_: value
        raise TextError(f"The archive asks for {module}.{name}, which weights do not need: it was not loaded.")

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the flat storage of a persistent id."""
        _, dtype, key, *_ = pid
        data = bytearray(self._archive.read(f"{self._prefix}data/{key}"))
        return torch.frombuffer(data, dtype=dtype)

    def read(self) -> Any:
        """Return the root module."""
        return self.load()


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Return a tensor over a storage; torch refuses tensors that exceed it."""
    if math.prod(size) > storage.numel():
        raise TextError(f"A tensor of the archive claims the shape {tuple(size)}, more than the archive holds.")
    return torch.as_strided(storage, size, stride, offset).clone()


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    if isinstance(module, _Module):
        for name, value in module.attributes.items():
            if isinstance(value, Tensor):
                tensors[prefix + name] = value
            else:
                _collect(value, f"{prefix}{name}.", tensors)
