"""A tiny CLIP text tower, and the files in which others publish its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mesm_core.text.clip import ClipTextTransformer

WIDTH, LAYERS = 16, 2


def tiny(seed: int = 0) -> ClipTextTransformer:
    """Return a text tower with random weights."""
    torch.manual_seed(seed)
    model = ClipTextTransformer(vocabulary=49408, context=77, width=WIDTH, layers=LAYERS, heads=2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def hugging_face(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenAI-named weights under Hugging Face's names."""
    named = {
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_model.final_layer_norm.weight": weights["ln_final.weight"],
        "text_model.final_layer_norm.bias": weights["ln_final.bias"],
        "vision_model.embeddings.position_embedding.weight": torch.zeros(3, 4),
        "logit_scale": torch.tensor(1.0),
    }
    renamed = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    renamed["attn.out_proj"] = "self_attn.out_proj"
    for layer in range(LAYERS):
        ours, theirs = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            for old, new in renamed.items():
                named[f"{theirs}.{new}.{kind}"] = weights[f"{ours}.{old}.{kind}"]
            parts = weights[f"{ours}.attn.in_proj_{kind}"].chunk(3)
            for part, value in zip("qkv", parts, strict=True):
                named[f"{theirs}.self_attn.{part}_proj.{kind}"] = value
    return {name: value.clone() for name, value in named.items()}


class Scripted(nn.Module):
    """The shape of OpenAI's archive: an image tower beside the text tower, in half precision."""

    def __init__(self, text: ClipTextTransformer) -> None:
        super().__init__()
        self.visual = nn.Linear(3, 4)
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.transformer = text.transformer
        self.ln_final = text.ln_final

    def forward(self, x: Tensor) -> Tensor:
        return self.ln_final(self.token_embedding(x))


def write_source(kind: str, folder: Path, model: ClipTextTransformer) -> Path:
    """Write a tower's weights as one of the sources publishes them."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    path = folder / {"script": "ViT-B-32.pt", "pth": "clip.pth", "nested": "open.pt"}.get(kind, f"{kind}.safetensors")
    if kind == "script":
        with torch.no_grad():
            torch.jit.trace(Scripted(model), torch.zeros(1, 2, dtype=torch.int64)).save(str(path))
    elif kind == "pth":
        torch.save(weights, path)
    elif kind == "nested":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    elif kind == "open_clip":
        visual = {
            "visual.transformer.resblocks.0.ln_1.weight": torch.zeros(9),
            "visual.positional_embedding": torch.zeros(3),
        }
        save_file(weights | visual, path)
    elif kind == "custom":
        save_file({f"text.{name}": value for name, value in weights.items()}, path)
    else:
        save_file(hugging_face(weights), path)
    return path
